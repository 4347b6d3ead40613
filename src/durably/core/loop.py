"""An asyncio event loop without a clock and without I/O: a queue of callbacks that runs until it is idle.

Everything asyncio builds on a loop (tasks, timeouts, locks, queues) then is deterministic. Timers become
commands, asked for through `LoopOwner`; whatever would reach for threads, sockets or processes is refused.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from asyncio import events as asyncio_events
from asyncio import tasks as asyncio_tasks
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any, Protocol

from durably.core.closing import close_coroutine, close_generator, is_alive
from durably.core.errors import Stall, TurnLimitError
from durably.core.refusals import ENSURE_FUTURE, refuse_as_completed, refuse_the_rest
from durably.core.sites import frame_at
from durably.core.stdlib import mend_asyncio

_get_running_loop = asyncio_events._get_running_loop
_set_running_loop = asyncio_events._set_running_loop
_swap_current_task = getattr(asyncio_tasks, "_swap_current_task", None)  # Python >= 3.12
_current_task_is_per_thread = sys.version_info >= (3, 14)


class LoopOwner(Protocol):
    """Who turns a delayed callback into a durable timer."""

    def start_timer(self, timer: Timer, delay: float) -> None:
        """Ask for `timer` to fire after `delay` seconds."""
        ...

    def timer_cancelled(self, timer: Timer) -> None:
        """`timer` will not be run."""
        ...


class Callback:
    """A queued callback; stands in for `asyncio.Handle`, which costs three times as much."""

    __slots__ = ("args", "callback", "context", "dropped")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context | None
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = contextvars.copy_context() if context is None else context
        self.dropped = False

    def run(self) -> None:
        """Call it in its context."""
        self.context.run(self.callback, *self.args)

    def cancel(self) -> None:
        """Do not run it."""
        self.dropped = True

    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self.dropped


class Timer(Callback):
    """A delayed callback. `seq` is the number of its command."""

    __slots__ = ("_owner", "_when", "seq")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
        *,
        when: float,
        owner: LoopOwner,
    ) -> None:
        super().__init__(callback, args, context)
        self._when = when
        self._owner = owner
        self.seq = 0

    def when(self) -> float:
        """Due time, on the loop's clock."""
        return self._when

    def cancel(self) -> None:
        """Do not run it."""
        if not self.dropped:
            self.dropped = True
            self._owner.timer_cancelled(self)


class OrchestratorTask(asyncio.Task[Any]):
    """A task hashed by its creation number: sets of tasks then iterate in the same order at every replay.

    The upper bits differ between runs: asyncio keeps all tasks of the process in one set.
    """

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        loop: OrchestratorLoop,
        number: int,
        name: str | None,
        context: contextvars.Context,
    ) -> None:
        self.number = number
        self._hash = loop.hash_base + number
        self.own_context = context
        super().__init__(coro, loop=loop, name=name or f"task-{number}", context=context)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other


class OrchestratorFuture(asyncio.Future[Any]):
    """A future hashed by its creation number, for the same reason."""

    def __init__(self, *, loop: OrchestratorLoop, number: int) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


@refuse_the_rest
class OrchestratorLoop(asyncio.AbstractEventLoop):
    """The loop of one run.

    Attributes:
        now_ms: stamp of the event being applied.
        hash_base: of the hashes of its tasks; the same at every replay.
        tasks: those that may be unfinished, by number.
        failed_tasks: finished ones whose error nobody has looked at yet.
        error: what escaped from a plain callback, or a `SystemExit`: it ends the execution at once.
    """

    def __init__(self, owner: LoopOwner, *, max_steps: int) -> None:
        mend_asyncio(OrchestratorLoop)
        self.owner = owner
        self.now_ms = 0
        self.hash_base = 0
        self.tasks: dict[int, OrchestratorTask] = {}
        self.failed_tasks: list[OrchestratorTask] = []
        self.error: BaseException | None = None
        self._ready: deque[Callback] = deque()
        self._generators: list[tuple[contextvars.Context, AsyncGenerator[Any, Any]]] = []
        self._gatherings: list[Any] = []
        self._created = 0
        self._max_steps = max_steps
        self.draining = False
        self._prune_at = 64
        self._running = _Running(self)

    # --- what asyncio asks of a loop ---------------------------------------------------------------------

    def time(self) -> float:
        """The stamp of the event being applied, in seconds."""
        return self.now_ms / 1000

    def call_soon(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  # a Handle by duck type
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Callback:
        """Queue a callback."""
        handle = Callback(callback, args, context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Timer:
        """Queue a callback behind a durable timer."""
        timer = Timer(callback, args, context, when=self.time() + delay, owner=self.owner)
        self.owner.start_timer(timer, delay)
        return timer

    def call_at(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Timer:
        """Queue a callback behind a durable timer that is due at `when`."""
        timer = Timer(callback, args, context, when=when, owner=self.owner)
        self.owner.start_timer(timer, when - self.time())
        return timer

    def run_soon(self, timer: Timer) -> None:
        """Queue a timer that fired."""
        self._ready.append(timer)

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        self._created += 1
        return OrchestratorFuture(loop=self, number=self._created)

    def create_task(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **_: Any,
    ) -> OrchestratorTask:
        """A task of this loop, held until it is done."""
        if frame_at(1).f_code in ENSURE_FUTURE:
            refuse_as_completed(coro)
        self._created += 1
        number = self._created
        task = OrchestratorTask(
            coro,
            loop=self,
            number=number,
            name=name,
            context=contextvars.copy_context() if context is None else context,
        )
        if len(self.tasks) >= self._prune_at:
            self.prune()
        self.tasks[number] = task
        return task

    def create_root(self, coro: Coroutine[Any, Any, Any], *, seed: int) -> OrchestratorTask:
        """The orchestrator's own task, in a fresh context."""
        self.hash_base = seed % 2**40 << 20
        return self.create_task(coro, name="orchestrator", context=contextvars.Context())

    def create_side_task(self, coro: Coroutine[Any, Any, Any], *, like: asyncio.Task[Any] | None) -> OrchestratorTask:
        """A task that an event begins, in a copy of the root's context."""
        context = like.own_context.copy() if isinstance(like, OrchestratorTask) else contextvars.Context()
        return self.create_task(coro, context=context)

    def stop_soon(self) -> None:
        """Run none of the queued callbacks."""
        self._ready.clear()

    def get_task_factory(self) -> None:
        """None: `create_task` is the factory."""

    def get_debug(self) -> bool:
        """False."""
        return False

    def is_running(self) -> bool:
        """Whether callbacks are being run."""
        return self.draining

    def is_closed(self) -> bool:
        """False: an abandoned loop is closed task by task, and no callback is refused."""
        return False

    def get_exception_handler(self) -> None:
        """None."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Nothing: a failed background task is dealt with when the orchestrator returns."""

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Nothing."""

    def _timer_handle_cancelled(self, handle: object) -> None:
        pass

    # --- running ---------------------------------------------------------------------------------------

    def running(self) -> AbstractContextManager[None]:
        """Stay the running loop while several events are applied, instead of becoming it for each."""
        return self._running

    def run_until_idle(self) -> None:
        """Run queued callbacks, and those that they queue, until none is left.

        Raises:
            TurnLimitError: more callbacks than the cap allows.
        """
        if self.draining:
            self._drain()
        else:
            with self._running:
                self._drain()

    def _drain(self) -> None:
        ready = self._ready
        steps = self._max_steps
        while ready:
            steps -= 1
            if steps < 0:
                raise TurnLimitError(
                    f"The orchestrator took more than {self._max_steps} steps for one event without waiting "
                    "for anything durable. It probably loops over `await asyncio.sleep(0)` or an awaitable "
                    "that is always ready. Wait for an activity or a timer inside the loop."
                )
            handle = ready.popleft()
            if not handle.dropped:
                try:
                    handle.context.run(handle.callback, *handle.args)
                except (Stall, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self.error = error
                    ready.clear()

    def close_everything(self) -> None:
        """Close each unfinished task and generator, in its own context, newest first.

        Left to the garbage collector, their `finally` blocks would run inside whatever execution happens to be
        draining then. Here they run now; the owner must refuse every command meanwhile.
        """
        interrupt: KeyboardInterrupt | None = None
        with self._running:
            for task in reversed(list(self.tasks.values())):
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
                interrupt = close_coroutine(task.own_context, task.get_coro()) or interrupt
            while self._generators:
                context, generator = self._generators.pop()
                interrupt = close_generator(context, generator) or interrupt
        for task in self.failed_tasks:
            task._log_traceback = False
        self.tasks.clear()
        self._ready.clear()
        if interrupt is not None:
            raise interrupt

    def prune(self) -> None:
        """Let go of finished tasks; remember those whose error nobody has looked at."""
        for number, task in list(self.tasks.items()):
            if task.done():
                del self.tasks[number]
                if task._log_traceback:
                    self.failed_tasks.append(task)
        self._prune_at = 2 * len(self.tasks) + 64

    def unhandled_error(self) -> BaseException | None:
        """The first error of a task that nobody awaited. `gather(return_exceptions=True)` looks at them at its end."""
        self.prune()
        gathered = {
            id(child) for gathering in self._gatherings if not gathering.done() for child in gathering._children
        }
        for task in self.failed_tasks:
            if task._log_traceback and id(task) not in gathered:
                return task.exception()
        return None

    def keep_gathering(self, gathering: asyncio.Future[Any]) -> None:
        """Remember what `asyncio.gather` returned."""
        if len(self._gatherings) >= 64:
            self._gatherings = [kept for kept in self._gatherings if not kept.done()]
        self._gatherings.append(gathering)

    def keep_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        if len(self._generators) >= 64:
            self._generators = [kept for kept in self._generators if is_alive(kept[1])]
        self._generators.append((contextvars.copy_context(), generator))


class _Running:
    """Makes a loop the thread's running loop, with its own asynchronous-generator hooks, and undoes it. Nests."""

    __slots__ = ("_depth", "_hooks", "_loop", "_outer", "_task")

    def __init__(self, loop: OrchestratorLoop) -> None:
        self._loop = loop
        self._depth = 0

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        self._outer = _get_running_loop()
        self._task = None
        if _current_task_is_per_thread and self._outer is not None and _swap_current_task is not None:
            self._task = _swap_current_task(self._outer, None)
        self._hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._loop.keep_generator, finalizer=None)
        self._loop.draining = True
        _set_running_loop(self._loop)

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth:
            return
        _set_running_loop(self._outer)
        self._loop.draining = False
        sys.set_asyncgen_hooks(*self._hooks)
        if self._task is not None and _swap_current_task is not None:
            _swap_current_task(self._outer, self._task)
