"""Every example of docs/orchestrators.md that talks to executions is run as it stands, each on a file of its own."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from durably import Activity, Client, Orchestrator
from durably.embedded import Embedded

PAGE = (
    (Path(__file__).parents[2] / "docs" / "orchestrators.md")
    .read_text(encoding="utf-8")
    .partition("# Talking to executions")[2]
)
PRELUDE = "import asyncio\nfrom dataclasses import dataclass\nfrom durably import *\n"
SHARED = 'STEP = Signal[int]("step")\n'
EXAMPLES = {
    heading: example
    for section in re.split(r"^##? ", PAGE, flags=re.MULTILINE)[1:]
    for heading in [section.partition("\n")[0]]
    for example in re.findall(r"```python\n(.*?)```", section, re.DOTALL)
}


class LateClient:
    """Serves what a module has defined, from the moment on when it asks for something."""

    def __init__(self, module: types.ModuleType, file: Path, stack: ExitStack) -> None:
        self._module, self._file, self._stack = module, file, stack
        self._client: Client | None = None

    def __getattr__(self, name: str) -> Any:
        if self._client is None:
            found = vars(self._module).values()
            runtime = Embedded(
                self._file,
                orchestrators=[each for each in found if isinstance(each, Orchestrator)],
                activities=[each for each in found if isinstance(each, Activity)],
            )
            self._client = self._stack.enter_context(runtime).client
        return getattr(self._client, name)


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    module = types.ModuleType("example_of_the_docs")
    sys.modules[module.__name__] = module  # annotations are looked up there
    yield module
    del sys.modules[module.__name__]


def test_there_is_an_example_for_each_thing_that_can_be_done() -> None:
    assert list(EXAMPLES) == [
        "Signals",
        "Queries",
        "Updates",
        "Children",
        "Continue-as-new",
        "Cancellation",
        "Suspend and resume",
        "Retry, reset, fork",
        "Changing code: patches and pinned versions",
    ]


@pytest.mark.parametrize("heading", EXAMPLES)
def test_an_example_does_what_it_says(heading: str, module: types.ModuleType, tmp_path: Path) -> None:
    with ExitStack() as stack:
        vars(module)["client"] = LateClient(module, tmp_path / "durably.db", stack)
        exec(compile(PRELUDE + SHARED + EXAMPLES[heading], "docs/orchestrators.md", "exec"), vars(module))
