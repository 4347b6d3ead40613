"""`Context`, what an orchestrator is given: its identity, its clock, its randomness, its logger."""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from durably.core.commands import CallSite
from durably.core.sites import frame_at

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from durably.core.execution import Execution

R = TypeVar("R")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionInfo:
    """Facts about the execution that the orchestrator may read.

    Attributes:
        execution_id: chosen by whoever started it.
        run: 1, and one more after each continue-as-new.
        orchestrator: persisted name.
        started_at: when this run began.
        history_length: inbound events applied so far.
    """

    execution_id: str
    run: int
    orchestrator: str
    started_at: datetime
    history_length: int


class Context:
    """The orchestrator's view of its execution. Everything it answers is the same at every replay."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._random: random.Random | None = None
        self._logger: ReplaySafeLogger | None = None

    @property
    def execution_id(self) -> str:
        """The id under which the execution was started."""
        return self._execution.run.execution_id

    def now(self) -> datetime:
        """The time of the event being applied, in UTC. It never goes back."""
        return instant(self._execution.now_ms)

    @property
    def random(self) -> random.Random:
        """A random generator of this run's own, seeded at the start."""
        if self._random is None:
            self._random = random.Random(self._execution.seed)
        return self._random

    def uuid4(self) -> uuid.UUID:
        """A random UUID that is the same at every replay."""
        return uuid.UUID(int=self.random.getrandbits(128), version=4)

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that is silent while history is replayed; records carry the execution's id."""
        if self._logger is None:
            self._logger = ReplaySafeLogger(self._execution)
        return self._logger

    @property
    def info(self) -> ExecutionInfo:
        """Identity and size of the execution."""
        execution = self._execution
        return ExecutionInfo(
            execution_id=execution.run.execution_id,
            run=execution.run.run,
            orchestrator=execution.program.name,
            started_at=instant(execution.started_ms),
            history_length=execution.applied,
        )

    def call(self, name: str, /, *, returns: type[R], **arguments: Any) -> Coroutine[Any, Any, R]:
        """Call an activity of another code base by its persisted name.

        Args:
            name: the activity's persisted name.
            returns: type of its result.
            arguments: its arguments by parameter name; plain JSON values.
        """
        frame = frame_at(1)
        return self._execution.call_by_name(name, arguments, returns, CallSite(frame.f_code, frame.f_lineno))


class ReplaySafeLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs to "durably.orchestrator.NAME", not while replaying."""

    def __init__(self, execution: Execution) -> None:
        super().__init__(logging.getLogger(f"durably.orchestrator.{execution.program.name}"), {})
        self._execution = execution

    def isEnabledFor(self, level: int) -> bool:
        """False while history is replayed."""
        return not self._execution.replaying and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add `execution_id` and `run` to the record."""
        run = self._execution.run
        kwargs["extra"] = {"execution_id": run.execution_id, "run": run.run, **(kwargs.get("extra") or {})}
        return msg, kwargs


def instant(at_ms: int) -> datetime:
    """The aware datetime of milliseconds since the epoch."""
    return _EPOCH + timedelta(milliseconds=at_ms)
