"""Where in user code something was asked for."""

from __future__ import annotations

import asyncio
import sys

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
