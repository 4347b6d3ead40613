"""The simulation over the functions that are deployed to AWS, on moto."""

from __future__ import annotations

import time

import pytest

from tests.simulation.aws import REQUEST_FAULTS
from tests.simulation.faults import DELIVERY_FAULTS
from tests.simulation.seeds import Report, run_seeds

LEAST_SEEDS, MOST_SEEDS = 25, 60
SECONDS = 20


@pytest.mark.slow
def test_whatever_befalls_requests_and_deliveries_every_execution_ends_as_its_direct_execution_ends() -> None:
    """As many seeds as there is time for; `make simulate ARGS="--mode aws"` runs others."""
    report, began = Report(), time.monotonic()
    while report.seeds < LEAST_SEEDS or (report.seeds < MOST_SEEDS and time.monotonic() - began < SECONDS):
        report.add(run_seeds(report.seeds, 1, "aws"))
    failures = [
        f'make simulate SEEDS=1 ARGS="--first-seed {seed} --mode aws": {why[0]}'
        for seed, why in report.failures.items()
    ]
    assert not failures, "\n".join(failures)
    kinds = {kind.rpartition(" ")[0] if "." in kind else kind for kind in report.faults}
    assert set(REQUEST_FAULTS) <= kinds
    assert set(DELIVERY_FAULTS) <= kinds
    assert {"reorder", "deduplicated"} <= kinds
    assert {"completed", "failed"} <= set(report.statuses)
