"""The client's part that ends, stops and repeats executions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from durably.api.registry import Registry
from durably.core.errors import ClientError
from durably.core.events import ExecutionCancelRequested, ExecutionResumed, ExecutionSuspended, ExecutionTerminated
from durably.core.keys import checked_text
from durably.ports.backend import Backend
from durably.ports.clock import Clock, Entropy
from durably.ports.records import ENDED, Record, Status
from durably.runtime.purging import ended_record, purge_closed, purge_execution, purgeable
from durably.runtime.resets import reset_execution, retry_execution
from durably.runtime.start import checked_request_id, existing_record, send_event


class Steering:
    """What an operator does to executions."""

    _backend: Backend
    _registry: Registry
    _clock: Clock
    _entropy: Entropy
    _pause: Callable[[float], object]

    def cancel(self, execution_id: str, reason: str = "cancelled by an operator") -> None:
        """Ask an execution to cancel itself: `CancelledError` where it waits. Asking twice is harmless.

        Raises:
            ExecutionNotFoundError: there is no such execution.
            ExecutionClosedError: it has ended.
        """
        send_event(self._backend, execution_id, ExecutionCancelRequested(reason=_text(reason)))

    def suspend(
        self,
        execution_id: str,
        reason: str = "suspended by an operator",
        *,
        request_id: str | None = None,
    ) -> None:
        """Keep the events of an execution, and run nothing, until it is resumed. Activities that run go on.

        Args:
            execution_id: which execution.
            reason: for the history.
            request_id: repeated under the same id after a `resume`, it does not suspend again.

        Raises:
            ExecutionNotFoundError: there is no such execution.
            ExecutionClosedError: it has ended.
        """
        event = ExecutionSuspended(reason=_text(reason), request_id=self._request_id(request_id))
        send_event(self._backend, execution_id, event)

    def resume(
        self,
        execution_id: str,
        reason: str = "resumed by an operator",
        *,
        request_id: str | None = None,
    ) -> None:
        """Apply what was kept since `suspend`. Resuming what is not suspended does nothing.

        Args:
            execution_id: which execution.
            reason: for the history.
            request_id: repeated under the same id after another `suspend`, it does not resume again.

        Raises:
            ExecutionNotFoundError: there is no such execution.
            ExecutionClosedError: it has ended.
        """
        event = ExecutionResumed(reason=_text(reason), request_id=self._request_id(request_id))
        send_event(self._backend, execution_id, event)

    def retry(self, execution_id: str, reason: str = "retried by an operator", *, request_id: str | None = None) -> int:
        """Open a failed, cancelled or terminated execution again at its last good point.

        The activities that made it fail run again; nothing that succeeded does.

        Args:
            execution_id: which execution.
            reason: for the history.
            request_id: the same retry under the same id happens once, and returns the same run. The last 20 retries
                and resets of an execution are remembered.

        Returns:
            Number of the new run.

        Raises:
            ExecutionNotFoundError: there is no such execution.
            NothingToRetryError: it is open, or it completed.
            ContendedError: it kept changing; try again.
        """
        run = retry_execution(
            self._backend,
            self._clock,
            self._entropy,
            execution_id,
            _text(reason),
            request_id=self._request_id(request_id),
            code_version=self._registry.code_version,
            pause=self._pause,
        )
        return run.run

    def reset(
        self,
        execution_id: str,
        to_event: int,
        reason: str = "reset by an operator",
        *,
        input_: str | None = None,
        request_id: str | None = None,
    ) -> int:
        """Go back to an event of the current run. What came after it is gone, but for signals and open updates.

        Args:
            execution_id: which execution, open or closed.
            to_event: number in its history of the last event to keep.
            reason: for the history.
            input_: another input, JSON text by parameter name; only with `to_event` 1.
            request_id: as for `retry`.

        Returns:
            Number of the new run.

        Raises:
            ExecutionNotFoundError: there is no such execution.
            ClientError: there is no such event, or the input was changed after it was used.
            PayloadError: the input does not fit the orchestrator.
            ContendedError: it kept changing, or continues as new and whoever does that died; try again in a minute.
        """
        if input_ is not None:
            input_ = self._input(existing_record(self._backend, execution_id).orchestrator, input_)
        run = reset_execution(
            self._backend,
            self._clock,
            self._entropy,
            execution_id,
            to_event=to_event,
            input_=input_,
            reason=_text(reason),
            request_id=self._request_id(request_id),
            code_version=self._registry.code_version,
            pause=self._pause,
        )
        return run.run

    def terminate(self, execution_id: str, reason: str = "terminated by an operator") -> None:
        """End an execution at once, without asking its code. When this returns, its end is stored or on its way.

        Raises:
            ExecutionNotFoundError: there is none.
            ExecutionClosedError: it has ended already.
        """
        send_event(self._backend, execution_id, ExecutionTerminated(reason=_text(reason)))

    def purge(self, execution_id: str, *, dry_run: bool = False) -> None:
        """Delete everything that is stored of a closed execution. For 15 days its id remembers that it was.

        Purging again what was purged finishes what a crash left. With `dry_run` nothing is deleted.

        Raises:
            ExecutionNotFoundError: there is none.
            ExecutionOpenError: it has not ended.
        """
        record = ended_record(self._backend, execution_id)
        if not dry_run:
            purge_execution(self._backend, self._clock, record)

    def purge_closed(
        self,
        *,
        closed_before: datetime,
        status: Status | None = None,
        orchestrator: str | None = None,
        dry_run: bool = False,
    ) -> Iterator[Record]:
        """Purge the executions that were closed before an instant, one at each step of the iterator.

        Take as many steps as there is time for. Whoever stops in between repeats the call, which finds what is left.

        Args:
            closed_before: an aware instant.
            status: only those that ended so; None for all that have ended.
            orchestrator: only those of that name.
            dry_run: delete nothing; the records are those that would go.

        Returns:
            The records of what is gone, as they were. On AWS the list that it reads from lags by about a second.

        Raises:
            ClientError: the instant has no time zone, or the status is that of open executions.
        """
        if closed_before.tzinfo is None:
            raise ClientError(f"closed_before must have a time zone, got {closed_before.isoformat()}.")
        if status is not None and status not in ENDED:
            raise ClientError(f"Only what has ended can be purged, and what is {status} has not.")
        closed_before_ms = round(closed_before.timestamp() * 1000)
        if dry_run:
            return purgeable(self._backend, closed_before_ms=closed_before_ms, status=status, orchestrator=orchestrator)
        return purge_closed(
            self._backend, self._clock, closed_before_ms=closed_before_ms, status=status, orchestrator=orchestrator
        )

    def _input(self, orchestrator: str, text: str) -> str:
        """An orchestrator's input as `start` would store it, limits included."""
        shape = self._registry.input_shape(orchestrator)
        return shape.encode(*shape.decode(text))

    def _request_id(self, given: str | None) -> str:
        """That of the caller, who may repeat the request, or a fresh one.

        Raises:
            InvalidIdError: it is too long.
        """
        return checked_request_id(given) or self._entropy.ulid(self._clock.now_ms())


def _text(reason: str) -> str:
    return checked_text(reason, "A reason")
