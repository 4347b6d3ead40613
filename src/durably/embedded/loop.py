"""The event loop of async activities, in a thread of its own. Whatever a task raises, the loop goes on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

_logger = logging.getLogger("durably.activity")

_CANCEL_S = 1.0


class LoopThread:
    """Runs coroutines side by side. The thread starts with the first of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    def run(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the coroutine that `call` makes."""
        with self._lock:
            if self._stopped:
                return
            if self._loop is None:
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._serve, args=(loop,), name="durably-async", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:
                    loop.close()
                    raise
                self._loop = loop
            self._loop.call_soon_threadsafe(self._begin, self._loop, call)

    def stop(self) -> None:
        """Cancel what still runs, and end the thread; a task that refuses for longer than a second is left behind."""
        with self._lock:
            self._stopped = True
            loop, thread, self._loop = self._loop, self._thread, None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(2 * _CANCEL_S)
        if thread.is_alive():
            _logger.warning("an async activity blocks its event loop; the loop is left behind")

    def _begin(self, loop: asyncio.AbstractEventLoop, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = loop.create_task(call())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stopped:
            # asyncio ends its loop on these, though they belong to one task
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                loop.run_forever()
        with contextlib.suppress(SystemExit, KeyboardInterrupt):
            loop.run_until_complete(_cancel_all(loop))
        loop.close()


async def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_CANCEL_S)
    await loop.shutdown_asyncgens()
    await asyncio.wait_for(loop.shutdown_default_executor(), _CANCEL_S)
