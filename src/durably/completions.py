"""The client's part that completes callback activities from outside, without their token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from durably.api.registry import Registry
from durably.core.errors import ActivityNotAwaitedError, ExecutionClosedError, PayloadError
from durably.core.failures import Failure
from durably.core.payloads import Shape
from durably.ports.backend import Backend
from durably.ports.clock import Clock, Entropy
from durably.ports.records import ActivityItem
from durably.ports.tokens import TokenClaims
from durably.runtime.by_id import awaited_item, claims_of
from durably.runtime.callbacks import CallbackAnswer, beat_attempt, complete_attempt, fail_attempt
from durably.runtime.runtime import Essentials
from durably.runtime.start import existing_record


class Completions:
    """Answers for the outside world, for whoever may manage executions."""

    _backend: Backend
    _registry: Registry
    _clock: Clock
    _entropy: Entropy

    def complete_activity(self, execution_id: str, activity: int | str, result: Any) -> None:
        """Complete a callback activity, as a POST to its callback would. The same result again changes nothing.

        Args:
            execution_id: which execution.
            activity: its number in the history, or the `idempotency_key` that its attempt was given.
            result: what the orchestrator gets.

        Raises:
            ExecutionNotFoundError: there is no such execution.
            ExecutionClosedError: it has ended.
            ActivityNotAwaitedError: the activity awaits no callback, or another result was recorded.
            PayloadError: the result does not fit.
        """
        item = awaited_item(self._essentials, execution_id, activity)
        runnable = None if item.task is None else self._registry.activity(item.task.name)
        shape: Shape = self._registry.codec.value(Any) if runnable is None else runnable.result
        text = shape.encode(result)
        self._settle(item, lambda essentials, claims: complete_attempt(essentials, claims, text))

    def fail_activity(self, execution_id: str, activity: int | str, failure: Failure | str) -> None:
        """Fail the current attempt of a callback activity; its policy decides whether there is another.

        Args:
            execution_id: which execution.
            activity: as for `complete_activity`.
            failure: what happened, or its message.

        Raises:
            ClientError: as for `complete_activity`.
        """
        given = Failure(type="CallbackFailed", message=failure) if isinstance(failure, str) else failure
        item = awaited_item(self._essentials, execution_id, activity)
        self._settle(item, lambda essentials, claims: fail_attempt(essentials, claims, given))

    def heartbeat_activity(self, execution_id: str, activity: int | str, details: Any = None) -> bool:
        """Say that a callback activity is being worked on.

        Args:
            execution_id: which execution.
            activity: as for `complete_activity`.
            details: how far it got, for the next attempt; None leaves what was said before.

        Returns:
            Whether cancellation was asked for: nobody waits for the result any more.

        Raises:
            ClientError: as for `complete_activity`.
        """
        text = None if details is None else self._registry.codec.value(type(details)).encode(details)
        item = awaited_item(self._essentials, execution_id, activity)
        answer = self._settle(item, lambda essentials, claims: beat_attempt(essentials, claims, text))
        return bool(answer.cancelled)

    @property
    def _essentials(self) -> Essentials:
        return Essentials(backend=self._backend, registry=self._registry, clock=self._clock, entropy=self._entropy)

    def _settle(
        self, item: ActivityItem, settle: Callable[[Essentials, TokenClaims], CallbackAnswer]
    ) -> CallbackAnswer:
        answer = settle(self._essentials, claims_of(item))
        if answer.verdict != "accepted":
            self._refuse(item, answer)
        return answer

    def _refuse(self, item: ActivityItem, answer: CallbackAnswer) -> NoReturn:
        execution_id = item.key.run.execution_id
        if answer.verdict in ("invalid", "too large"):
            raise PayloadError(answer.message)
        if answer.verdict == "gone":
            record = existing_record(self._backend, execution_id)
            if record.closed:
                raise ExecutionClosedError(f"Execution {execution_id!r} is {record.status}; it accepts nothing more.")
            raise ActivityNotAwaitedError(
                f"Activity {item.key.seq} of execution {execution_id!r} awaits no callback any more. {answer.message}"
            )
        raise ActivityNotAwaitedError(f"Activity {item.key.seq} of execution {execution_id!r}: {answer.message}")
