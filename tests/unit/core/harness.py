"""Drives the core by hand: events in, one line per command out. Nothing but the standard library and the core."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from durably.core.commands import (
    CancelActivity,
    Command,
    CompleteExecution,
    FailExecution,
    ScheduleActivity,
    StartTimer,
    describe_command,
    record_command,
)
from durably.core.context import Context
from durably.core.errors import PayloadError
from durably.core.events import (
    ActivityCompleted,
    ActivityFailed,
    ExecutionStarted,
    ExecutionTerminated,
    InboundEvent,
    TimerFired,
)
from durably.core.execution import Execution, Program
from durably.core.failures import Failure, failure_of
from durably.core.history import Turn
from durably.core.keys import RunKey
from durably.core.payloads import ArgumentsShape, Shape
from durably.core.replay import replay

Orchestrate = Callable[..., Coroutine[Any, Any, Any]]

START_MS = 1_700_000_000_000
KEY = RunKey("packet-42", "01HF", 1)


class JsonShape:
    """Plain JSON, equal by value."""

    def encode(self, value: Any) -> str:
        try:
            return json.dumps(value)
        except TypeError as error:
            raise PayloadError(str(error)) from error

    def decode(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            raise PayloadError(str(error)) from error

    def same(self, recorded: str, current: str) -> bool:
        return bool(json.loads(recorded) == json.loads(current))


class JsonArguments:
    """An `ArgumentsShape` that stores positional arguments as an array."""

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        assert not kwargs
        return json.dumps(args)

    def decode(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tuple(json.loads(text)), {}

    def same(self, recorded: str, current: str) -> bool:
        return bool(json.loads(recorded) == json.loads(current))


class JsonCodec:
    """A `PayloadCodec` that knows JSON and no types."""

    def value(self, annotation: Any) -> Shape:
        return JsonShape()

    def result(self, fn: Callable[..., Any]) -> Shape:
        return JsonShape()

    def arguments(self, fn: Callable[..., Any], *, skip: int = 0) -> ArgumentsShape:
        return JsonArguments()


def program_of(orchestrate: Orchestrate) -> Program:
    """`orchestrate` takes the context and what its input holds, positionally."""
    return Program(
        name=orchestrate.__name__,
        start=lambda ctx, text: orchestrate(ctx, *json.loads(text)),
        arguments=JsonArguments(),
        result=JsonShape(),
    )


def ask(ctx: Context, name: str, **arguments: Any) -> Coroutine[Any, Any, Any]:
    """The activity `name`."""
    return ctx.call(name, returns=object, **arguments)


def line_of(command: Command) -> str:
    """How the tests write a command."""
    match command:
        case ScheduleActivity(seq, name, input_):
            return f"{seq} {name}" if input_ == "{}" else f"{seq} {name} {input_}"
        case StartTimer(seq, delay_ms):
            return f"{seq} timer {delay_ms}"
        case CancelActivity(seq):
            return f"cancel {seq}"
        case CompleteExecution(result):
            return f"return {result}"
        case FailExecution(failure):
            return f"raise {failure}"
        case _:
            return describe_command(command)


class Run:
    """One execution, and the turns that its history would hold: one turn an event.

    Attributes:
        said: the commands of each event, as lines.
    """

    def __init__(self, orchestrate: Orchestrate, *arguments: Any, seed: int = 7, max_steps: int = 1_000_000) -> None:
        self.orchestrate = orchestrate
        self.max_steps = max_steps
        self.execution = self.fresh()
        self.turns: list[Turn] = []
        self.said: list[list[str]] = []
        self.now_ms = START_MS
        self.asked = self.apply(
            ExecutionStarted(
                orchestrator=orchestrate.__name__, input=json.dumps(arguments), seed=seed, python="3.11", at_ms=START_MS
            )
        )

    def fresh(self, orchestrate: Orchestrate | None = None) -> Execution:
        return Execution(KEY, program_of(orchestrate or self.orchestrate), JsonCodec(), max_steps=self.max_steps)

    # --- events in ---------------------------------------------------------------------------------------

    def apply(self, event: InboundEvent) -> list[str]:
        commands = self.execution.apply(event)
        cause = len(self.turns) + 1
        self.turns.append(
            Turn(
                number=cause,
                kind="applied",
                inbound=(event,),
                outbound=tuple(record_command(command, cause=cause, now_ms=event.at_ms) for command in commands),
                applied_through=cause,
                nonce="nonce",
                code_version="v1",
                at_ms=event.at_ms,
            )
        )
        self.said.append([line_of(command) for command in commands])
        return self.said[-1]

    def completed(self, seq: int, value: Any = None, *, after_ms: int = 1_000) -> list[str]:
        return self.apply(ActivityCompleted(seq=seq, result=json.dumps(value), at_ms=self._later(after_ms)))

    def failed(self, seq: int, error: BaseException | Failure, *, attempt: int = 1) -> list[str]:
        failure = error if isinstance(error, Failure) else failure_of(error)
        return self.apply(ActivityFailed(seq=seq, failure=failure, attempt=attempt, at_ms=self._later(1_000)))

    def fired(self, seq: int, *, after_ms: int = 1_000) -> list[str]:
        return self.apply(TimerFired(seq=seq, at_ms=self._later(after_ms)))

    def terminated(self, reason: str = "enough") -> list[str]:
        return self.apply(ExecutionTerminated(reason=reason, at_ms=self._later(0)))

    def _later(self, milliseconds: int) -> int:
        self.now_ms += milliseconds
        return self.now_ms

    # --- history -------------------------------------------------------------------------------------------

    def replayed(self, turns: int | None = None, *, by: Orchestrate | None = None) -> Execution:
        """A fresh execution of the first `turns` turns, of the recorded code or of `by`."""
        execution = self.fresh(by)
        try:
            replay(execution, self.turns[:turns])
        except BaseException:
            execution.close()
            raise
        return execution

    def check(self) -> None:
        """Every prefix of the history replays, and goes on as the live execution went on."""
        for length in range(len(self.turns)):
            execution = self.replayed(length)
            event = self.turns[length].inbound[0]
            assert [line_of(command) for command in execution.apply(event)] == self.said[length]
            execution.close()


def lines(run: Run) -> Iterator[str]:
    """Everything asked for so far."""
    for commands in run.said:
        yield from commands
