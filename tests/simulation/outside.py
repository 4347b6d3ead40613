"""The world outside: who starts and terminates executions, and who calls back, on time, late, twice or wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from durably.api.attempt import AttemptInfo, Callback
from durably.api.orchestrator import IdReuse, StartOptions
from durably.client import Client
from durably.core.errors import (
    ActivityNotAwaitedError,
    ContendedError,
    ExecutionClosedError,
    ExecutionExistsError,
    ExecutionNotFoundError,
    StorageError,
)
from durably.core.events import ExecutionTerminated
from durably.core.failures import Failure
from durably.ports.tokens import TokenClaims
from durably.runtime.callbacks import CallbackAnswer, Verdict, beat_callback, complete_callback, fail_callback
from durably.runtime.runtime import Runtime
from durably.runtime.start import send_event, start_execution
from tests.simulation.activities import answer
from tests.simulation.conversing import HELLO
from tests.simulation.faults import Crash
from tests.simulation.hearts import Hearts
from tests.simulation.interpret import interpret
from tests.simulation.operators import Operators
from tests.simulation.schedules import Timekeepers
from tests.simulation.senders import Senders

if TYPE_CHECKING:
    from tests.simulation.world import World

REFUSED = Failure(type="Refused", message="the service said no")


@dataclass
class Start:
    """A start that a client asks for, until it gets an answer or gives up.

    Attributes:
        greeted: whether the start comes with a signal.
        pinned: to the version of its first turn, which is not that of whoever starts it.
        accepted: whether the client was told that it is stored.
        refused: whether it was told that the id is taken.
    """

    execution_id: str
    request_id: str
    program: str
    id_reuse: IdReuse = "reject"
    greeted: bool = False
    pinned: bool = False
    accepted: bool = False
    refused: bool = False
    tries: int = 0


@dataclass
class Token:
    """What callers tried with one task token, and what they were told."""

    claims: TokenClaims
    n: int
    key: str = ""
    accepted: str | None = None
    tried: set[str] = field(default_factory=set)


class Outsiders:
    """Clients and callback senders. They try again until they are answered, unless they are careless."""

    def __init__(self, world: World, callers: int = 2) -> None:
        self.world = world
        self.runtimes = [world.runtime_for(self, world.skew_ms()) for _ in range(callers)]
        self.tokens: dict[str, Token] = {}
        self.starts: list[Start] = []
        self.terminated: dict[str, list[str | None]] = {}
        self.broken: list[str] = []
        self.clients = clients = self.made_clients()
        self.hearts = Hearts(world)
        self.senders = Senders(world, clients)
        self.operators = Operators(world, clients)
        self.timekeepers = Timekeepers(world, clients)

    def made_clients(self) -> list[Client]:
        return [client_of(runtime) for runtime in self.runtimes]

    def suspend(self) -> None:
        self.world.let_others_go_on()

    # --- clients ------------------------------------------------------------------------------------------------

    def will_start(self, start: Start, delay_ms: int) -> None:
        self.starts.append(start)
        self.world.at(delay_ms, lambda: self._start(start))

    def will_terminate(self, execution_id: str, delay_ms: int) -> None:
        self.world.at(delay_ms, lambda: self._terminate(execution_id))

    def _start(self, start: Start) -> None:
        runtime = self.world.rng.choice(self.runtimes)
        start.tries += 1
        try:
            started = self._started(runtime, start)
        except ExecutionExistsError:
            start.refused = True
            if start.id_reuse == "allow_if_closed" and start.tries < 6:
                self.world.at(60_000, lambda: self._start(start))
        except (Crash, StorageError):
            if self.world.rng.randrange(8):
                self.world.at(self.world.rng.choice((100, 5_000, 100_000)), lambda: self._start(start))
            else:
                self.world.sweep_later()
        else:
            start.accepted = start.accepted or started
            start.refused = False

    def _started(self, runtime: Runtime, start: Start) -> bool:
        """Start it, or find it started; False where an open execution has the id and got the signal only."""
        if start.greeted:
            options = interpret.options(id_reuse=start.id_reuse, request_id=start.request_id)
            handle = client_of(runtime).signal_with_start(start.execution_id, HELLO, answer(0), options, start.program)
            lives = {record.gen: record.request_id for record in self.world.store.records()}
            return lives[str(handle.gen)] == start.request_id
        record, _ = start_execution(
            runtime.backend,
            runtime.clock,
            runtime.entropy,
            execution_id=start.execution_id,
            orchestrator="interpret",
            input_=json.dumps({"program": start.program, "done": "[]"}),
            options=StartOptions(id_reuse=start.id_reuse, request_id=start.request_id, pinned=start.pinned),
            code_version="of its starter",
        )
        return record.request_id == start.request_id

    def _terminate(self, execution_id: str) -> None:
        runtime = self.world.rng.choice(self.runtimes)
        told = self.terminated.setdefault(execution_id, [])
        try:
            record = send_event(runtime.backend, execution_id, ExecutionTerminated(reason="the operator said so"))
        except (ExecutionNotFoundError, ExecutionClosedError):
            return
        except (Crash, StorageError):
            told.append(None)
            if self.world.rng.randrange(2):
                self.will_terminate(execution_id, 1_000)
        else:
            told.append(record.gen)

    # --- those who were invited -----------------------------------------------------------------------------------

    def invited(self, name: str, n: int, size: int, what: str, attempt: AttemptInfo) -> None:
        self.senders.invited(name, n, size, what, attempt)

    # --- callers ------------------------------------------------------------------------------------------------

    def asked(self, callback: Callback[int], n: int, plan: str, attempt: AttemptInfo) -> None:
        """A callback activity handed a request over."""
        known = callback.token in self.tokens
        if known and self.world.rng.randrange(2):
            return
        token = callback.token
        if not known:
            claims = self.runtimes[0].signer.verify(token)
            self.tokens[token] = Token(claims, n)
        delays = self.world.rng
        soon = delays.choice((0, 0, 100, 3_000, 20_000))
        steps = _PLANS[plan](attempt.attempt)
        self.tokens[token].key = attempt.idempotency_key
        if plan == "impatient":
            self._call(token, steps, careless=False)
        elif steps:
            delay = {"late": 15_000, "late by key": 200_000}.get(plan, soon)
            self.world.at(delay, lambda: self._call(token, steps, careless=plan == "careless"))

    def _call(self, token: str, steps: tuple[str, ...], *, careless: bool) -> None:
        """Do the first of `steps`; the others once it is answered."""
        step, *later = steps
        self.tokens[token].tried.add(step)
        try:
            verdict = self._answered(token, step)
        except (Crash, StorageError):
            if not careless:
                self.world.at(1_000, lambda: self._call(token, steps, careless=careless))
            return
        self._judge(self.tokens[token], step, verdict)
        if later:
            pauses = (1_000, 20_000) if step.startswith("beat") else (0, 1_000)
            self.world.at(self.world.rng.choice(pauses), lambda: self._call(token, tuple(later), careless=careless))

    def _answered(self, token: str, step: str) -> Verdict:
        runtime = self.world.rng.choice(self.runtimes)
        known = self.tokens[token]
        right = answer(known.n)
        if step == "fail":
            return self._failed(runtime, token).verdict
        if step == "forged":
            return self._completed(runtime, token[:-1] + ("A" if token[-1] != "A" else "B"), str(right)).verdict
        if step == "beat":
            details = json.dumps(self.hearts.saying(known.claims.key, known.claims.attempt), separators=(",", ":"))
            return self._heard(known, self._beaten(runtime, token, details))
        if step.endswith("by key"):
            return self._managed(self.clients[self.runtimes.index(runtime)], known, known.key, step)
        if step.endswith("by number"):  # of the current run, whichever that is
            record = self.world.store.read_record(known.claims.key.run.execution_id)
            if record is None or record.key != known.claims.key.run:
                return "gone"
            return self._managed(self.world.calm_client(), known, known.claims.key.seq, step)
        payload = {"ok": str(right), "late": str(right), "wrong": '"?"'}.get(step, "0")
        return self._completed(runtime, token, payload).verdict

    def _completed(self, runtime: Runtime, token: str, value: str) -> CallbackAnswer:
        return complete_callback(runtime, token, value)

    def _failed(self, runtime: Runtime, token: str) -> CallbackAnswer:
        return fail_callback(runtime, token, REFUSED)

    def _beaten(self, runtime: Runtime, token: str, details: str) -> CallbackAnswer:
        return beat_callback(runtime, token, details)

    def _heard(self, token: Token, told: CallbackAnswer) -> Verdict:
        if told.cancelled and not self.hearts.nobody_waits(token.claims.key, token.claims.attempt):
            self.broken.append(f"a heartbeat was answered {told}, {token.claims}")
        return told.verdict

    def _managed(self, client: Client, token: Token, activity: int | str, step: str) -> Verdict:
        """Answer without the token."""
        key = token.claims.key
        try:
            if step.startswith("beat"):
                client.heartbeat_activity(key.run.execution_id, activity, self.hearts.saying(key, None))
            else:
                client.complete_activity(key.run.execution_id, activity, answer(token.n))
        except (ActivityNotAwaitedError, ExecutionClosedError, ExecutionNotFoundError):
            return "gone"
        return "accepted"

    def _judge(self, token: Token, step: str, verdict: str) -> None:
        """Whether P7 allows the answer."""
        self.world.verdicts[verdict] += 1
        record = self.world.store.read_record(token.claims.key.run.execution_id)
        reused = record is not None and record.gen != token.claims.key.run.gen
        if not _ALLOWED.get(step, _anything)(token, verdict, reused):
            self.broken.append(f"P7: {step} was answered {verdict}, accepted was {token.accepted}, {token.claims}")
        if verdict == "accepted" and not step.startswith("beat"):
            token.accepted = token.accepted or step.partition(" by ")[0]


def client_of(runtime: Runtime) -> Client:
    """A client in the surroundings of a process."""
    return Client(runtime.backend, runtime.registry, runtime.clock, runtime.entropy, pause=_never_pause)


def _never_pause(seconds: float) -> None:
    raise ContendedError("somebody waits, and asks again later instead")


def _ok(token: Token, verdict: str, reused: bool) -> bool:
    if token.accepted == "ok":
        return verdict == "accepted" or (reused and verdict == "gone")
    return verdict in {"accepted", "gone"}


def _other(token: Token, verdict: str, reused: bool) -> bool:
    if token.accepted == "ok":
        return verdict == "conflict" or (reused and verdict == "gone")
    return verdict in {"gone", "conflict"}


def _anything(token: Token, verdict: str, reused: bool) -> bool:
    return True


_ALLOWED: dict[str, Callable[[Token, str, bool], bool]] = {
    "ok": _ok,
    "other": _other,
    "wrong": lambda token, verdict, _: (
        verdict in {"invalid", "gone"} or (verdict == "conflict" and "ok" in token.tried)
    ),
    "late": lambda _token, verdict, _reused: verdict == "gone",
    "forged": lambda _token, verdict, _reused: verdict == "unauthorised",
    "fail": lambda _token, verdict, _reused: verdict in {"accepted", "gone"},
    "beat": lambda _token, verdict, _reused: verdict in {"accepted", "gone"},
}


_PLANS: dict[str, Callable[[int], tuple[str, ...]]] = {
    "on time": lambda _: ("ok",),
    "impatient": lambda _: ("ok",),
    "twice": lambda _: ("ok", "ok"),
    "wrong first": lambda _: ("wrong", "ok"),
    "different": lambda _: ("ok", "other", "ok"),
    "failing": lambda _: ("fail", "fail"),
    "forged": lambda _: ("forged", "ok"),
    "late": lambda _: ("late",),
    "never": lambda _: (),
    "second": lambda attempt: ("ok",) if attempt > 1 else (),
    "fail then succeed": lambda attempt: ("ok",) if attempt > 1 else ("fail",),
    "careless": lambda _: ("ok",),
    "beats": lambda _: ("beat", "beat", "beat", "ok"),
    "dies": lambda attempt: ("beat", "ok") if attempt > 1 else ("beat", "beat"),
    "by key": lambda _: ("beat by key", "ok by key", "ok by key"),
    "by number": lambda _: ("beat by number", "ok by number"),
    "late by key": lambda attempt: ("ok by key",) if attempt % 8 == 1 else (),
}
