"""Closing abandoned coroutines and asynchronous generators at once, whatever their clean-up does.

`close()` and `GeneratorExit` would not do: they do not reach into an asynchronous generator that is being iterated.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextvars import Context
from functools import partial
from itertools import chain, repeat
from typing import Any

_PATIENCE = 100
_FRAMES = ("cr_frame", "ag_frame", "gi_frame")


class Abandoned(BaseException):
    """Raised where an abandoned run waits, so that its `finally` blocks run."""


def close_coroutine(context: Context, coroutine: Any) -> KeyboardInterrupt | None:
    """Close a task's coroutine, in its context. An interrupt is handed back, so that the others are closed too."""
    return _close(context, coroutine, partial(coroutine.throw, Abandoned))


def close_generator(context: Context, generator: AsyncGenerator[Any, Any]) -> KeyboardInterrupt | None:
    """Close an asynchronous generator that nobody iterates any more, in the context it was iterated in."""
    closing: Any = generator.aclose()
    steps = chain((partial(closing.send, None),), repeat(partial(closing.throw, Abandoned)))

    def close() -> None:
        next(steps)()

    return _close(context, generator, close)


def is_alive(closable: Any) -> bool:
    """Whether a coroutine has not ended: a native one, an asynchronous generator, or asyncio's around an awaitable."""
    return any(getattr(closable, frame, None) is not None for frame in _FRAMES)


def _close(context: Context, closable: Any, close: Callable[[], object]) -> KeyboardInterrupt | None:
    interrupt: KeyboardInterrupt | None = None
    for _ in range(_PATIENCE):  # each `await` in clean-up takes one more: TaskGroup has such an `await`
        try:
            context.run(close)
        except KeyboardInterrupt as error:
            interrupt = error
        except BaseException:  # the run is given up: nobody is left to be told
            pass
        if not is_alive(closable):
            return interrupt
    _make_immortal(closable)
    return interrupt


def _make_immortal(closable: object) -> None:
    """Leak what swallowed its end: collected later, or at exit, it could spin for ever."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(closable))
