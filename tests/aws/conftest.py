"""A deployment per test, with every program in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.aws import programs
from tests.aws.driver import Cloud, deployed


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    programs.reset()
    with deployed(programs.ORCHESTRATORS, programs.ACTIVITIES, local=[programs.near]) as cloud:
        yield cloud
