"""What a case gets and what it gives, and the arithmetic of repeated measurements."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple, TypeAlias


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure.

    Attributes:
        value: in the unit of its case.
        n: the size that was measured.
        extra: further figures of the same runs, by name.
    """

    value: float
    n: int
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and how thoroughly to measure.

    Attributes:
        directory: on a disk; each call of `file` names a fresh database in it.
        quick: smaller sizes and fewer repetitions.
    """

    directory: Path
    quick: bool
    _numbers: Iterator[int] = field(default_factory=count)

    def file(self) -> Path:
        return self.directory / f"{next(self._numbers)}.db"

    def repeats(self, full: int, quick: int = 1) -> int:
        return quick if self.quick else full

    def sizes(self, full: Sequence[int], quick: Sequence[int]) -> Sequence[int]:
        return quick if self.quick else full


Run: TypeAlias = Callable[[Bench], Iterator[Measurement]]


class Case(NamedTuple):
    """A line of the table.

    Attributes:
        name: as printed.
        unit: of `value`.
        run: measures.
        about: what is measured, and which of several repetitions counts.
    """

    name: str
    unit: str
    run: Run
    about: str


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call, with the garbage of earlier ones out of the way and the collector on."""
    gc.collect()
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def best(samples: Sequence[float]) -> float:
    """For pure computation: whatever disturbs it makes it longer, so the shortest is the truest."""
    return min(samples)


def middle(samples: Sequence[float]) -> float:
    """For what waits for disks, threads and processes: good luck counts no more than bad luck."""
    return median(samples)


def percentile(samples: Sequence[float], percent: int) -> float:
    return quantiles(samples, n=100, method="inclusive")[percent - 1]
