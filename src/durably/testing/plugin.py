"""The pytest plugin: the fixture `durably_env`. It loads nothing of durably until a test asks for that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from durably.testing.environment import Environment

pytest.register_assert_rewrite("durably.testing.histories", "durably.testing.mocks")


@pytest.fixture
def durably_env() -> Iterator[Environment]:
    """A `durably.testing.Environment`, closed at the end of the test."""
    from durably.testing.environment import Environment

    with Environment() as env:
        yield env
