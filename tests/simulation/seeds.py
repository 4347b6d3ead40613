"""Running seeds: one, or a range of them over several processes."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from durably.core.events import ExecutionStarted
from tests.simulation.interpret import interpret, program_of
from tests.simulation.invariants import violations
from tests.simulation.programs import features
from tests.simulation.world import Mode, Parts, World

Modes = Literal["atomic", "stepwise", "both", "aws"]


@dataclass
class Report:
    """What a number of seeds added up to.

    Attributes:
        failures: what was violated, by seed.
    """

    seeds: int = 0
    executions: int = 0
    turns: int = 0
    steps: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    failures: dict[int, list[str]] = field(default_factory=dict)

    def add(self, other: Report) -> None:
        self.seeds += other.seeds
        self.executions += other.executions
        self.turns += other.turns
        self.steps += other.steps
        self.faults.update(other.faults)
        self.features.update(other.features)
        self.verdicts.update(other.verdicts)
        self.statuses.update(other.statuses)
        self.failures.update(other.failures)


def mode_of(seed: int, modes: Modes) -> Mode:
    """With "both", odd seeds are stepwise."""
    if modes != "both":
        return modes
    return "stepwise" if seed % 2 else "atomic"


def broken_by(world: World) -> list[str]:
    """Run a world to its end; what it broke."""
    try:
        world.run()
        return violations(world)
    except Exception:
        return [traceback.format_exc()]


def run_seeds(first: int, count: int, modes: Modes = "both", parts: Parts | None = None) -> Report:
    """Run seeds `first` to `first + count - 1` in this process."""
    report = Report(seeds=count)
    for seed in range(first, first + count):
        with made_world(seed, mode_of(seed, modes), parts) as world:
            broken = broken_by(world)
            if broken:
                report.failures[seed] = broken
            _count(report, world)
    return report


@contextmanager
def made_world(seed: int, mode: Mode, parts: Parts | None = None) -> Iterator[World]:
    """A world, which on AWS lasts as long as its account."""
    if mode != "aws":
        yield World(seed, mode, parts=parts)
        return
    from tests.simulation.aws import AwsWorld, on_moto

    with on_moto():
        yield AwsWorld(seed, parts=parts)


def _count(report: Report, world: World) -> None:
    report.steps += world.steps
    report.faults.update(world.faults.counts)
    report.verdicts.update(world.verdicts)
    for record in world.store.records():
        report.executions += 1
        report.statuses[record.status] += 1
        turns = world.store.load_turns(record.key)
        report.turns += len(turns)
        started = turns[0].inbound[0]
        if isinstance(started, ExecutionStarted) and record.orchestrator == interpret.name:
            report.features.update(features(program_of(started.input)))
