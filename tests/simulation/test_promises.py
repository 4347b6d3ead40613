"""The promises P1 to P7, by name. Most are kept through a sweep: the process dies before and after each call of the
store, one call at a time, and in stepwise mode also between the steps of a call.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from durably.adapters.tokens import HmacTokenSigner
from durably.core.events import ActivityCompleted, ActivityFailed, TimerFired
from durably.ports.messages import Outgoing, Wake
from durably.ports.records import Record
from durably.runtime.callbacks import complete_callback
from durably.runtime.runtime import Limits
from tests.simulation.activities import answer
from tests.simulation.faults import OneCrash, RandomFaults, Storm
from tests.simulation.interpret import PROGRAMS, STATEMENTS, Interpreter
from tests.simulation.invariants import history, outcome
from tests.simulation.programs import _EXPECTED, Node
from tests.simulation.seeds import broken_by
from tests.simulation.world import START_MS, Mode, World

MODES: tuple[Mode, ...] = ("atomic", "stepwise")
both_modes = pytest.mark.parametrize("mode", MODES)

DAY_MS = 86_400_000
LEASE_AND_RESTART_MS = 60_000 + 70_000
START_AGAIN_MS = 300_000


def sequence(*parts: Node) -> Node:
    return Node("seq", 0, 0, "", parts)


WORK, SLEEP, ASK = Node("work", 1), Node("sleep", 2, 5_000), Node("ask", 3, 1, "on time")
FLAKY, LOCAL, ONCE = Node("flaky", 4, 2), Node("work_here", 5), Node("once", 6, 2)
GATHER = Node("gather", 7, 0, "", (Node("work", 8), Node("work_async", 9), Node("flaky", 10, 1)))
TIMEOUT = Node("timeout", 11, 2_000, "", (Node("ask_for_ever", 12, 1, "on time"),))
EVERYTHING = sequence(WORK, SLEEP, ASK, FLAKY, LOCAL, ONCE, GATHER, TIMEOUT)


def swept(
    mode: Mode, program: Node, *, prepare: Callable[[World], object] | None = None, limits: Limits | None = None
) -> Iterator[World]:
    """A world for each place where a process or a client can die, run to its end; then the one in which none dies."""
    index = 0
    while True:
        faults = OneCrash(index)
        world = World(1, mode, programs=[program], faults=faults, calm=True, limits=limits)
        if prepare is not None:
            prepare(world)
        broken = broken_by(world)
        assert not broken, f"died at call {index}, {dict(faults.counts)}: {broken}"
        yield world
        if not faults.counts:
            break
        index += 1
    assert index >= 10, f"{index} places to die"


def answers(world: World) -> list[int]:
    """The seqs that were answered, in the order of history."""
    return [
        event.seq
        for record in world.store.records()
        for turn in world.store.load_turns(record.key)
        for event in turn.inbound
        if isinstance(event, ActivityCompleted | ActivityFailed | TimerFired)
    ]


# --- P1 -------------------------------------------------------------------------------------------------------


@both_modes
def test_p1_an_accepted_start_is_never_lost(mode: Mode) -> None:
    accepted = 0
    for world in swept(mode, sequence(WORK)):
        [start] = world.outside.starts
        accepted += start.accepted
        assert [record.status for record in world.store.records()] == ["completed"] or not start.accepted
    assert accepted >= 10


@both_modes
@pytest.mark.parametrize("plan", ["on time", "twice", "failing", "different"])
def test_p1_an_accepted_callback_is_never_lost(mode: Mode, plan: str) -> None:
    accepted = 0
    for world in swept(mode, sequence(Node("ask", 1, 1, plan))):
        accepted += sum(token.accepted is not None for token in world.outside.tokens.values())
    assert accepted >= 20


@both_modes
def test_p1_an_accepted_termination_is_never_lost(mode: Mode) -> None:
    terminated = 0
    sleeping = sequence(Node("sleep", 1, 90_000))
    for world in swept(mode, sleeping, prepare=lambda world: world.outside.will_terminate("x0", 1_000)):
        [record] = world.store.records()
        told = world.outside.terminated.get("x0", [])
        assert record.status == "terminated" or record.gen not in told
        terminated += record.status == "terminated"
    assert terminated > 5


# --- P2 -------------------------------------------------------------------------------------------------------


@both_modes
def test_p2_each_event_is_applied_once_whatever_a_crash_repeats(mode: Mode) -> None:
    for world in swept(mode, EVERYTHING):
        resolved = answers(world)
        assert len(resolved) == len(set(resolved))


@both_modes
@pytest.mark.parametrize("seed", range(25))
def test_p2_duplicates_and_late_arrivals_change_nothing(mode: Mode, seed: int) -> None:
    storm = Storm(Random(seed), budget=60)
    world = World(seed, mode, programs=[EVERYTHING, sequence(GATHER, TIMEOUT, GATHER)], faults=storm)
    assert broken_by(world) == []
    assert storm.counts.total() > 5


# --- P3 -------------------------------------------------------------------------------------------------------


@both_modes
def test_p3_edited_code_stalls_names_both_sides_and_resumes_when_it_is_restored(mode: Mode) -> None:
    original, edited = sequence(WORK, SLEEP, ASK), sequence(Node("work_async", 1), SLEEP, ASK)
    world = _undisturbed(mode, original)
    before: list[Any] = []

    def edit(program: Node) -> None:
        before[:] = world.store.load_turns(world.store.records()[0].key)
        PROGRAMS["p0"] = program
        for worker in world.workers:
            worker.restart()

    def inspect_and_restore() -> None:
        [record] = world.store.records()
        assert (record.status, record.failure is None) == ("stalled", False)
        message = str(record.failure)
        for part in (
            'history recorded work({"n":1}) at simulation/sequential.py:',
            'the code now asks for work_async({"n":1}) at simulation/sequential.py:',
            "Restore the recorded behaviour, or let running executions finish",
        ):
            assert part in message
        turns = world.store.load_turns(record.key)
        assert turns[: len(before)] == before
        assert {turn.kind for turn in turns[len(before) :]} == {"deferred"}
        edit(original)

    world.at(1_000, lambda: edit(edited))
    world.at(60_000, inspect_and_restore)
    assert broken_by(world) == []
    assert [record.status for record in world.store.records()] == ["completed"]


@both_modes
def test_p3_a_history_replays_to_the_same_commands_wherever_the_process_died(mode: Mode) -> None:
    for world in swept(mode, sequence(GATHER, Node("drawn", 20), Node("clock", 21), TIMEOUT)):
        [record] = world.store.records()
        assert list(history(world.store.load_turns(record.key))) == []


# --- P4 -------------------------------------------------------------------------------------------------------


@both_modes
def test_p4_an_activity_runs_at_least_once_and_its_result_is_recorded_once(mode: Mode) -> None:
    most = 0
    for world in swept(mode, sequence(WORK, GATHER, LOCAL, FLAKY)):
        completed = [
            event.seq
            for turn in world.store.load_turns(world.store.records()[0].key)
            for event in turn.inbound
            if isinstance(event, ActivityCompleted)
        ]
        assert len(completed) == len(set(completed)) == 6
        assert {key.seq for key, _ in world.runs} == set(completed)
        most = max(most, *world.runs.values())
    assert most > 1, "no crash made an activity run again: the sweep does not reach between run and record"


@both_modes
def test_p4_an_attempt_of_an_at_most_once_activity_never_runs_twice(mode: Mode) -> None:
    runs = 0
    for world in swept(mode, sequence(ONCE)):
        assert set(world.runs.values()) <= {1}
        runs += world.runs.total()
    assert runs >= 20


# --- P5 -------------------------------------------------------------------------------------------------------


@both_modes
def test_p5_a_crash_anywhere_costs_delay_and_nothing_else(mode: Mode) -> None:
    longest_ms = 60_000  # of an undisturbed run: sleeps, retries and callers together
    for world in swept(mode, EVERYTHING):
        [record] = world.store.records()
        assert record.closed_at_ms is not None
        began_late = any("create" in place for place in world.faults.counts)
        allowed_ms = longest_ms + (START_AGAIN_MS if began_late else LEASE_AND_RESTART_MS)
        assert record.closed_at_ms - START_MS <= allowed_ms, dict(world.faults.counts)


def test_p5_a_wake_that_takes_the_place_of_another_sends_what_that_one_left_unsent() -> None:
    """Whoever stored a turn died before its messages, while another process replaced the wake that it was handling."""

    def replace_the_wake() -> None:
        [record] = world.store.records()
        assert [turn.number for turn in world.store.load_turns(record.key)] == [1, 2]
        world.store.acknowledge(list(world.store.queue._by_receipt))
        world.store.send([Outgoing(Wake(run=record.key, turn=1, tries=1))])

    index = 0
    while True:
        faults = OneCrash(index)
        world = World(1, "stepwise", programs=[sequence(WORK)], faults=faults, calm=True)
        world.at(500, replace_the_wake)
        while world.step(START_MS + 100):
            pass
        if "crash inside commit, before a message" in faults.counts:
            break
        index += 1
    assert broken_by(world) == []


# --- P6 -------------------------------------------------------------------------------------------------------


async def _spin(it: Interpreter, node: Node) -> Any:
    for _ in itertools.count():
        await asyncio.sleep(0)


async def _kill_the_process(_: Interpreter, node: Node) -> Any:
    raise KeyboardInterrupt


async def _change_its_mind(it: Interpreter, node: Node) -> Any:
    """What it asks for differs at each replay."""
    _moods.append(len(_moods))
    return await STATEMENTS["work"](it, Node("work", _moods[-1]))


_moods: list[int] = []
_COLD = Limits(warm_executions=0, steps_per_event=20_000)


def _poisoned(mode: Mode, poison: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[World, Record]:
    """A world at rest after a poison execution and a healthy one, and the record of the poison one."""
    monkeypatch.setitem(STATEMENTS, "poison", poison)
    healthy = sequence(WORK, SLEEP, GATHER)
    world = _undisturbed(mode, sequence(WORK, Node("poison", 30)), healthy, limits=_COLD)
    world.run()
    ill, well = world.store.records()
    assert (well.status, well.result) == outcome(healthy)
    assert well.closed_at_ms is not None
    assert well.closed_at_ms - START_MS < 5 * 60_000
    assert (ill.execution_id, ill.status) == ("x0", "stalled")
    assert world.workers[0].life <= 3 * (1 + _COLD.fruitless_wakes), "it goes on killing its process"
    return world, ill


@both_modes
@pytest.mark.parametrize("poison", [_spin, _kill_the_process, _change_its_mind])
def test_p6_a_poison_execution_hurts_itself_only(mode: Mode, poison: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world, ill = _poisoned(mode, poison, monkeypatch)
    assert ill.failure is not None
    assert world.store.messages() == []


@both_modes
@pytest.mark.parametrize("poison", [_spin, _kill_the_process])
def test_p6_a_cured_execution_resumes(mode: Mode, poison: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world, ill = _poisoned(mode, poison, monkeypatch)
    monkeypatch.setitem(STATEMENTS, "poison", STATEMENTS["yield"])
    world.store.send([Outgoing(Wake(run=ill.key, turn=ill.turn))])
    world.run()
    assert [record.status for record in world.store.records()] == ["completed", "completed"]


@both_modes
def test_p6_an_execution_that_recovered_says_so_wherever_a_process_died(
    mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = 0
    seen: list[str] = []

    async def kill_the_process_thrice(it: Interpreter, node: Node) -> Any:
        nonlocal killed
        killed += 1
        if killed <= 3:
            raise KeyboardInterrupt
        return node.kind

    def prepare(world: World) -> None:
        nonlocal killed
        killed = 0
        world.at(DAY_MS, lambda: seen.append(world.store.records()[0].status))

    monkeypatch.setitem(STATEMENTS, "poison", kill_the_process_thrice)
    monkeypatch.setitem(_EXPECTED, "poison", lambda node: node.kind)
    for world in swept(mode, sequence(Node("poison", 1), Node("sleep", 2, 2 * DAY_MS)), prepare=prepare, limits=_COLD):
        assert world.store.records()[0].status == "completed"
    assert set(seen) == {"running"}


# --- P7 -------------------------------------------------------------------------------------------------------


@both_modes
@pytest.mark.parametrize("plan", ["twice", "wrong first", "different", "forged", "failing"])
def test_p7_callers_get_a_true_answer_wherever_a_process_died(mode: Mode, plan: str) -> None:
    verdicts: set[str] = set()
    for world in swept(mode, sequence(Node("ask", 1, 1, plan), SLEEP)):
        verdicts |= set(world.verdicts)
    wanted = {"wrong first": "invalid", "different": "conflict", "forged": "unauthorised"}.get(plan, "accepted")
    assert wanted in verdicts


@both_modes
def test_p7_a_token_serves_one_attempt_of_one_activity_of_one_life_of_one_deployment(mode: Mode) -> None:
    world = _undisturbed(mode, sequence(Node("ask", 1, 1, "never")))
    asked: list[str] = []

    def call() -> None:
        runtime = world.outside.runtimes[0]
        [token] = world.outside.tokens
        claims = runtime.signer.verify(token)
        run = claims.key.run
        right = str(answer(1))

        def verdict(other: str, payload: str = right) -> str:
            return complete_callback(runtime, other, payload).verdict

        sign = runtime.signer.sign
        stranger = HmacTokenSigner("another deployment", {"k1": b"k" * 32}, "k1")
        asked.extend(
            (
                verdict(stranger.sign(claims)),
                verdict(token[:-2]),
                verdict(""),
                verdict(sign(replace(claims, attempt=2))),
                verdict(sign(replace(claims, key=replace(claims.key, seq=2)))),
                verdict(sign(replace(claims, key=replace(claims.key, run=replace(run, gen="another life"))))),
                verdict(sign(replace(claims, key=replace(claims.key, run=replace(run, execution_id="x1"))))),
                verdict(sign(replace(claims, expires_at_ms=world.now_ms - 10_000))),
                verdict(token, '"no number"'),
                verdict(token),
                verdict(token),
                verdict(token, "99"),
            )
        )

    world.at(10_000, call)
    world.run()
    assert asked == [
        *("unauthorised", "unauthorised", "unauthorised"),
        *("gone", "gone", "gone", "gone", "gone"),
        *("invalid", "accepted", "accepted", "conflict"),
    ]
    [record] = world.store.records()
    assert (record.status, record.result) == ("completed", '"[8]"')


# --- inside ---------------------------------------------------------------------------------------------------


def _undisturbed(mode: Mode, *programs: Node, limits: Limits | None = None) -> World:
    faults = RandomFaults(Random(1), budget=0, gap=1)
    return World(1, mode, programs=programs, faults=faults, calm=True, limits=limits)
