"""The house itself: what may lie where, how long it may be, and what it may not say."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
LONGEST = 500
CODE = {".py", ".pyi", ".js", ".css", ".yaml", ".yml"}
VAGUE = {"utils.py", "util.py", "helpers.py", "helper.py", "common.py", "base.py", "misc.py"}
BINARY = {".png", ".ico", ".gif", ".jpg", ".woff2", ".gz", ".zip", ".db"}
UNTRACKED = {"__pycache__", "build", "dist"}


@cache
def house_files() -> list[PurePosixPath]:
    """Every file that is or would be committed, relative to the root."""
    names = known_to_git()
    if names is None:
        found = (PurePosixPath(path.relative_to(ROOT).as_posix()) for path in ROOT.rglob("*"))
        names = [path for path in found if not any(is_untracked(part) for part in path.parts)]
    return [name for name in names if (ROOT / name).is_file()]


def known_to_git() -> list[PurePosixPath] | None:
    """None in a source archive, and where git is missing or will not look."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        return None
    return [PurePosixPath(name) for name in listed.stdout.split("\0") if name]


def is_untracked(part: str) -> bool:
    hidden = part.startswith(".") and part not in {".ci", ".gitignore", ".editorconfig"}
    return hidden or part in UNTRACKED or part.endswith(".egg-info")


def text_of(name: PurePosixPath) -> str:
    return "" if name.suffix in BINARY else (ROOT / name).read_text(encoding="utf-8", errors="replace")


def test_the_house_is_found() -> None:
    assert PurePosixPath("pyproject.toml") in house_files()
    assert not [name for name in house_files() if ".venv" in name.parts]


def test_no_file_of_code_is_longer_than_500_lines() -> None:
    lengths = {str(name): text_of(name).count("\n") for name in house_files() if name.suffix in CODE}
    assert not {name: length for name, length in lengths.items() if length > LONGEST}


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert not [str(name) for name in house_files() if name.parts[0] == "src" and name.name in VAGUE]


def test_no_file_mentions_the_place_it_was_written_in() -> None:
    # written in two halves, or this file would be the first to fail
    private = ["/wo" + "rk/", "shared/" + "DESIGN", "shared/" + "STYLE", "/ro" + "ot/"]
    said = {str(name): [word for word in private if word in text_of(name)] for name in house_files()}
    assert not {name: words for name, words in said.items() if words}


def test_durably_ships_its_types() -> None:
    assert (ROOT / "src/durably/py.typed").is_file()
