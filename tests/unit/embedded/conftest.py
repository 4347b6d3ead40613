"""A runtime on a temporary file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from durably import Activity, Orchestrator
from durably.embedded import Embedded

Run = Callable[..., Embedded]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "durably.db"


@pytest.fixture
def run(path: Path) -> Iterator[Run]:
    """Starts runtimes of the definitions given, and stops them in the end."""
    with ExitStack() as stack:

        def start(*definitions: Orchestrator[..., Any] | Activity[..., Any], **options: Any) -> Embedded:
            settings: dict[str, Any] = {"synchronous": "OFF", "http": None} | options
            return stack.enter_context(
                Embedded(
                    path,
                    orchestrators=[one for one in definitions if isinstance(one, Orchestrator)],
                    activities=[one for one in definitions if isinstance(one, Activity)],
                    **settings,
                )
            )

        yield start
