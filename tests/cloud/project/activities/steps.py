"""Activities of the cloud tests."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

from durably import Callback, RetryPolicy, activity, attempt_info, callback_activity


@activity
def echo(value: int) -> int:
    """The value."""
    return value


@activity(retry=RetryPolicy(max_attempts=5, initial_interval=timedelta(milliseconds=200)))
def fails_twice(value: int) -> int:
    """The value, at the third attempt."""
    if attempt_info().attempt < 3:
        raise ConnectionError(f"attempt {attempt_info().attempt} of {value}")
    return value


@activity(timeout=timedelta(seconds=1), retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(seconds=0.1)))
def takes_too_long() -> None:
    """Longer than it may."""
    time.sleep(5)


@activity(timeout=timedelta(seconds=10))
def takes_a_while(marks: str, seconds: float) -> int:
    """How often it began, told by files in the folder `marks`; it sleeps after having told that it did."""
    begun = len(list(Path(marks).iterdir())) + 1
    (Path(marks) / f"{begun}-{os.getpid()}").touch()
    time.sleep(seconds)
    return begun


@callback_activity(timeout=timedelta(seconds=3))
def forgotten(callback: Callback[int], marks: str) -> None:
    """Hands its address over to somebody who will not use it in time."""
    (Path(marks) / "url").write_text(callback.url)


@activity
def doubles(text: str) -> str:
    """The text, twice."""
    return text * 2
