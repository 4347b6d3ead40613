"""Where in user code something was asked for."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from types import FrameType, FunctionType
from typing import Any

from durably.core.commands import NOWHERE, CallSite

frame_at = sys._getframe  # pyright: ignore[reportPrivateUsage]  # what `logging` and `warnings` use
_OURS = (__file__.rpartition("core")[0], asyncio.__file__.rpartition("__init__")[0])


def outside_call_site() -> CallSite:
    """The innermost frame that belongs neither to durably nor to asyncio."""
    frame = frame_at(1)
    while frame.f_code.co_filename.startswith(_OURS):
        if frame.f_back is None:
            return NOWHERE
        frame = frame.f_back
    return CallSite(frame.f_code, frame.f_lineno)


def caller_at(frame: FrameType) -> Callable[..., Any]:
    """`caller(fn, *args, **kwargs)` calls `fn` as if the source that `frame` is at did, whenever that is."""
    there = frame.f_code
    code = _call.__code__.replace(
        co_filename=there.co_filename,
        co_name=there.co_name,
        co_qualname=there.co_qualname,
        co_firstlineno=frame.f_lineno - 1,  # it calls in its second line
    )
    return FunctionType(code, {})


def _call(fn: Callable[..., object], /, *args: object, **kwargs: object) -> object:
    return fn(*args, **kwargs)
