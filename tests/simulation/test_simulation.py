"""The simulation itself: many seeds, programs that hypothesis draws and shrinks, and what a seed must be worth."""

from __future__ import annotations

import json
import subprocess
import sys
from random import Random

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from durably.codec import wire
from tests.simulation import __main__ as command_line
from tests.simulation.faults import DELIVERY_FAULTS, RandomFaults
from tests.simulation.interpret import STATEMENTS
from tests.simulation.invariants import outcome
from tests.simulation.programs import KINDS, draw_program
from tests.simulation.schedules import ACTIONS
from tests.simulation.seeds import Report, broken_by, mode_of, run_seeds
from tests.simulation.world import Mode, World

SEEDS = 500


@pytest.mark.slow
def test_whatever_goes_wrong_every_execution_ends_as_its_direct_execution_ends() -> None:
    report = run_seeds(0, SEEDS)
    print(f"{report.seeds} seeds, {report.executions} executions, {report.turns} turns")
    for kind, count in sorted(report.faults.items()):
        print(f"{count:7}  {kind}")
    failures = [f'make simulate SEEDS=1 ARGS="--first-seed {seed}": {why[0]}' for seed, why in report.failures.items()]
    assert not failures, "\n".join(failures)
    assert report.seeds == SEEDS
    assert {"completed", "failed", "cancelled", "terminated"} == set(report.statuses)


@pytest.mark.slow
def test_the_seeds_meet_every_fault_every_statement_and_every_answer() -> None:
    report = run_seeds(10_000, SEEDS)
    calls = ("create", "read_record", "load_turns", "commit", "read_item", "settle", "send", "acknowledge")
    ends = ("crash before", "crash after", "lost response", "refused", "zombie before", "zombie after")
    wanted = {f"{end} {call}" for call in calls for end in ends}
    wanted |= {f"{end} {call}" for call in ("create", "commit", "settle") for end in ("crash inside", "half done")}
    wanted |= {*DELIVERY_FAULTS, "reorder", "duplicate send"}
    wanted |= {f"schedule: {action}" for action in ("delete", *ACTIONS)}
    assert wanted <= set(report.faults)
    assert {name.partition(":")[0] for name in report.features} == KINDS
    assert {"accepted", "conflict", "gone", "invalid", "unauthorised"} <= set(report.verdicts)


def test_every_statement_can_be_interpreted_and_its_end_is_known() -> None:
    assert set(STATEMENTS) == KINDS


@settings(deadline=None, derandomize=True, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(
    author=st.randoms(use_true_random=False),
    statements=st.integers(1, 12),
    seed=st.integers(0, 2**32),
    mode=st.sampled_from(("atomic", "stepwise")),
)
def test_any_program_survives_any_seed(author: Random, statements: int, seed: int, mode: Mode) -> None:
    program = draw_program(author, statements)
    note(f"{program}\nends as {outcome(program)}")
    assert broken_by(World(seed, mode, programs=[program])) == []


@pytest.mark.parametrize("seed", range(40, 48))
def test_a_seed_decides_everything(seed: int) -> None:
    assert _histories(seed) == _histories(seed)


def test_a_calm_world_takes_no_fault_and_no_restart() -> None:
    world = World(3, "atomic", faults=RandomFaults(Random(3), budget=0, gap=1), calm=True)
    assert broken_by(world) == []
    assert (world.faults.counts.total(), [worker.life for worker in world.workers]) == (0, [0])


def test_the_command_line_counts_and_names_seeds() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "20", "--first-seed", "70", "--jobs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "faults injected: " in done.stdout
    assert "20 seeds, " in done.stdout
    assert "0 failed" in done.stdout


def test_the_command_line_fails_with_a_line_that_reproduces_each_failing_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["simulation", "--seeds", "2", "--mode", "stepwise"])
    monkeypatch.setattr(command_line, "_reports", lambda *_: [Report(seeds=2, failures={7: ["turns are not gapless"]})])
    assert command_line.main() == 1
    assert (
        'FAILED: make simulate SEEDS=1 ARGS="--first-seed 7 --mode stepwise"\n  turns are not'
        in capsys.readouterr().out
    )


def _histories(seed: int) -> str:
    world = World(seed, mode_of(seed, "both"))
    assert broken_by(world) == []
    turns = [
        wire.encode_turn(t).decode() for record in world.store.records() for t in world.store.load_turns(record.key)
    ]
    return json.dumps([turns, world.faults.counts, world.steps, world.now_ms])
