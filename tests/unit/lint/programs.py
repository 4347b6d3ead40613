"""Programs to lint, written into a folder of their own."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

from durably.lint import Finding, lint

PRELUDE = """\
import asyncio
from durably import Callback, Context, activity, callback_activity, orchestrator

@activity
async def work(number: int) -> int: ...

@activity
def names() -> set[str]: ...

@callback_activity
def ask(callback: Callback[str]) -> None: ...

"""


def program(body: str, before: str = "") -> str:
    """A module with an orchestrator of that body."""
    signature = "@orchestrator\nasync def flow(ctx: Context, number: int = 1, tags: set[str] | None = None) -> None:\n"
    return PRELUDE + dedent(before) + "\n\n" + signature + indent(dedent(body).strip(), "    ") + "\n"


def findings(folder: Path, *checked: str, **files: str) -> list[Finding]:
    """What is found in the `checked` of these files; by default in all of them."""
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").touch()
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    named = checked or tuple(files)
    return list(lint(folder / f"{name}.py" for name in named).findings)


def codes(folder: Path, body: str, before: str = "") -> list[str]:
    """The codes found in an orchestrator of that body."""
    return [each.code for each in findings(folder, flows=program(body, before))]
