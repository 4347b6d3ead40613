"""Each test of this folder runs in every place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.features.places import Aws, Memory, Place, Sqlite

PLACES: dict[str, type[Place]] = {"memory": Memory, "sqlite": Sqlite, "aws": Aws}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield PLACES[request.param](stack, tmp_path)
