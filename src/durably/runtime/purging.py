"""Deleting what is stored of closed executions. What their end was to cause is caused before, as often as it takes."""

from __future__ import annotations

from collections.abc import Iterator

from durably.api.names import check_execution_id
from durably.core.errors import ExecutionNotFoundError, ExecutionOpenError
from durably.core.replay import RunState
from durably.ports.backend import Backend
from durably.ports.clock import Clock
from durably.ports.records import ENDED, Record, Status
from durably.runtime.closing import errands, notice, record_change

_QUEUES_KEEP_MS = 14 * 24 * 3600 * 1000


def ended_record(backend: Backend, execution_id: str) -> Record:
    """The record of an execution that has ended, or the tombstone of one that is purged.

    Raises:
        ExecutionNotFoundError: there is none.
        ExecutionOpenError: it has not ended.
    """
    record = backend.read_record(check_execution_id(execution_id))
    if record is None:
        raise ExecutionNotFoundError(f"No execution has the id {execution_id!r}.")
    if not record.closed:
        raise ExecutionOpenError(
            f"Execution {execution_id!r} is {record.status}; only what has ended can be purged. Terminate it first."
        )
    return record


def purge_execution(backend: Backend, clock: Clock, record: Record) -> None:
    """Delete what is stored of a closed execution, but for a tombstone.

    Raises:
        ExecutionOpenError: it goes on.
    """
    if not _purge(backend, clock, record):
        raise ExecutionOpenError(
            f"Execution {record.execution_id!r} went on, or was started again, while it was to be purged. "
            "Look at it again."
        )


def purgeable(
    backend: Backend, *, closed_before_ms: int, status: Status | None, orchestrator: str | None
) -> Iterator[Record]:
    """Records of executions that were closed before an instant, as they are listed: by status, newest start first."""
    for each in ENDED if status is None else (status,):
        for record in _listed(backend, each, orchestrator, closed_before_ms):
            if record.closed_at_ms is not None and record.closed_at_ms < closed_before_ms:
                yield record


def purge_closed(
    backend: Backend,
    clock: Clock,
    *,
    closed_before_ms: int,
    status: Status | None,
    orchestrator: str | None,
) -> Iterator[Record]:
    """Purge executions that were closed before an instant, one at each step; what an earlier call left half-way first.

    Whoever stops, or dies, in between repeats the call: it finds what is left.
    """
    for record in _listed(backend, "purged", orchestrator, None):
        if _purge(backend, clock, record):
            yield record
    for listed in purgeable(backend, closed_before_ms=closed_before_ms, status=status, orchestrator=orchestrator):
        found = backend.read_record(listed.execution_id)  # the list may lag
        if found is None or (found.gen, found.closed_at_ms) != (listed.gen, listed.closed_at_ms):
            continue
        if _purge(backend, clock, found):
            yield found


def _purge(backend: Backend, clock: Clock, record: Record) -> bool:
    """Purge a life; False if it goes on, or the id has another one.

    Whoever closed it may have died before telling its parent and its children, and what would do it after that is a
    message to a life that is no more.
    """
    if record.status != "purged" and (record.closed_at_ms or 0) > clock.now_ms() - _QUEUES_KEEP_MS:
        turns, state = backend.load_turns(record.key), RunState()
        for turn in turns:
            state.add(turn)
        if turns and state.closed:
            told = notice(record_change(record.key, turns[-1]), state)
            backend.send((*told, *errands(record.key, state, since=turns[-1].number)))
    return backend.purge(record)


def _listed(
    backend: Backend, status: Status, orchestrator: str | None, started_before_ms: int | None
) -> Iterator[Record]:
    cursor: str | None = None
    while True:
        page = backend.list_records(
            status=status, orchestrator=orchestrator, started_before_ms=started_before_ms, cursor=cursor
        )
        yield from page.records
        cursor = page.cursor
        if cursor is None:
            return
