"""A deployment on moto for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from durably.adapters.aws import AwsBackend
from tests.contract.aws import Cloud, cloud
from tests.contract.harness import ManualClock


@pytest.fixture
def made() -> Iterator[Cloud]:
    with cloud(ManualClock()) as deployed:
        yield deployed


@pytest.fixture
def backend(made: Cloud) -> AwsBackend:
    return made.backend()
