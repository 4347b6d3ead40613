"""Several requests at once, and no thread left behind: a Lambda function is frozen when it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def spread(function: Callable[[T], R], values: Sequence[T], *, parallel: int) -> list[R]:
    """`function` of each value, in their order. A single one is called right here."""
    if len(values) <= 1 or parallel <= 1:
        return [function(value) for value in values]
    with ThreadPoolExecutor(max_workers=min(parallel, len(values)), thread_name_prefix="durably-aws") as pool:
        return list(pool.map(function, values))
