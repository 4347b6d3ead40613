"""Sagas: what was done is undone, in reverse, when the rest fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, Self

from durably.core.errors import DurablyError
from durably.core.failures import message_of
from durably.core.flow import settle
from durably.core.sites import caller_at, frame_at

P = ParamSpec("P")


class SagaCompensationError(ExceptionGroup[Exception], DurablyError):
    """Compensations failed, so that not all is undone; the others ran. The cause is what made the saga fail.

    Attributes:
        exceptions: what the compensations raised, in the order in which they ran.
    """


class _Compensation(NamedTuple):
    name: str
    undo: Callable[[], Awaitable[object]]


class Saga:
    """`async with ctx.saga() as saga:` runs what `saga.compensate(...)` noted if its body does not reach its end.

    Compensations are ordinary calls, recorded like any other. Neither a cancellation nor a timeout around the block
    interrupts them; it goes on once they are through.
    """

    def __init__(self, *, parallel: bool) -> None:
        self._parallel = parallel
        self._noted: list[_Compensation] = []

    def compensate(self, undo: Callable[P, Awaitable[object]], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Note how to undo a step: `await undo(*args, **kwargs)`. Note it before the step that may half succeed.

        Args:
            undo: an activity, an orchestrator (run as a child), or any async function.
            args: its arguments, encoded when it runs.
            kwargs: the same.
        """
        name = getattr(undo, "name", None) or getattr(undo, "__name__", repr(undo))
        self._noted.append(_Compensation(str(name), partial(caller_at(frame_at(1)), undo, *args, **kwargs)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # anything else means that this run is given up; its compensations are another run's, if there is one
        if not isinstance(error, Exception | asyncio.CancelledError | SystemExit) or not self._noted:
            return
        failed: list[tuple[str, Exception]] = []
        undoing = [partial(_undone, compensation, failed) for compensation in reversed(self._noted)]
        if self._parallel:
            tasks = [asyncio.create_task(undo()) for undo in undoing]
        else:
            tasks = [asyncio.create_task(_in_turn(undoing))]
        cancelled = await settle(tasks)
        for task in tasks:
            task.result()
        if failed:
            names = ", ".join(f"{name}: {message_of(cause)}" for name, cause in failed)
            message = f"{len(failed)} of {len(undoing)} compensations failed ({names})"
            raise SagaCompensationError(message, [cause for _, cause in failed]) from error
        if cancelled is not None:
            raise cancelled


async def _in_turn(undoing: Sequence[Callable[[], Awaitable[None]]]) -> None:
    for undo in undoing:
        await undo()


async def _undone(compensation: _Compensation, failed: list[tuple[str, Any]]) -> None:
    try:
        await compensation.undo()
    except asyncio.CancelledError:
        failed.append((compensation.name, DurablyError(f"the compensation {compensation.name} was cancelled")))
    except Exception as error:
        failed.append((compensation.name, error))
