"""An invocation that pauses while the others go on: a thread, of which only one runs at a time."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durably.runtime.attempt import Attempt
    from tests.simulation.aws import AwsWorld


class Aside(threading.Thread):
    """A function that runs an activity; the world goes on where it pauses.

    Args:
        world: in which it runs.
        invoke: the function, and what is to be done with its answer.
        paused: told for how many milliseconds it pauses.
    """

    def __init__(self, world: AwsWorld, invoke: Callable[[], None], paused: Callable[[int], None]) -> None:
        super().__init__(daemon=True)
        self._world = world
        self._invoke = invoke
        self._paused = paused
        self._pause_ms: int | None = None
        self._error: BaseException | None = None
        self._ended = False
        self._mine, self._others = threading.Semaphore(0), threading.Semaphore(0)

    def go_on(self) -> None:
        """Run until it pauses or ends."""
        if not self.is_alive():
            self._world.asides.add(self)
            self.start()
        self._pause_ms = None
        with self._world.wire.used_by(None):
            self._mine.release()
            self._others.acquire()
        if self._pause_ms is not None:
            self._paused(self._pause_ms)
            self._world.at(self._pause_ms, self.go_on)
            return
        self._world.asides.discard(self)
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """The process ends while it pauses."""
        self._ended = True
        self._mine.release()
        self.join()

    def run(self) -> None:
        self._mine.acquire()
        try:
            self._invoke()
        except BaseException as error:
            self._error = error
        finally:
            self._others.release()

    def pause(self, ms: int) -> None:
        """Called in it: let the others go on for so long."""
        process = self._world.wire.process
        self._pause_ms = ms
        self._others.release()
        self._mine.acquire()
        if self._ended:
            raise KeyboardInterrupt
        self._world.wire.process = process


def driven(attempt: Attempt, seconds: float) -> Any:
    """Run an activity; where it awaits, it pauses."""
    del seconds
    value = attempt.call()
    if not inspect.iscoroutine(value):
        return value
    aside = threading.current_thread()
    assert isinstance(aside, Aside)
    while True:
        try:
            pause_ms = value.send(None)
        except StopIteration as stop:
            return stop.value
        try:
            aside.pause(pause_ms)
        except KeyboardInterrupt:
            value.close()
            raise
