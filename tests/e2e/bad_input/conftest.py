"""A runtime, and an execution that is to come out of everything unharmed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from durably import Handle
from durably.embedded import Embedded
from tests.e2e.bad_input.parcels import embedded, url_of, urls, weighed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "durably.db"


@pytest.fixture
def runtime(path: Path) -> Iterator[Embedded]:
    urls.clear()
    with embedded(path) as running:
        yield running


@pytest.fixture
def waiting(runtime: Embedded) -> Handle[int]:
    """An execution that awaits a callback at `urls["parcel"]`, and is to come out of everything unharmed."""
    handle = runtime.client.start("parcel-1", weighed, "parcel")
    url_of("parcel")
    return handle
