"""The same program asks for the same things: on every Python, under every hash seed, beside whatever else runs, and
as the golden record holds it. A change of `golden.txt` means that running executions stall after an upgrade.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from durably.codec import wire
from durably.core.replay import replay
from tests.determinism.programs import PROGRAMS
from tests.determinism.record import bare, text_of
from tests.determinism.record import run as recorded_run

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GOLDEN = HERE / "golden.txt"
HISTORIES = HERE / "histories.txt"
TESTED = ((3, 11), (3, 12), (3, 13), (3, 14))
WANTED = {(3, 11), (3, 13)}
THIS = sys.version_info[:2]


def interpreters() -> Iterator[tuple[tuple[int, int], str]]:
    """One Python of each supported version: this one, those on the path, those of pyenv."""
    found = {THIS: sys.executable}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in TESTED:
        name = "python{}.{}".format(*version)
        places = [shutil.which(name) or "", *(str(path) for path in sorted(pyenv.glob(f"*/bin/{name}")))]
        found.setdefault(version, next(filter(runs, places), ""))
    return ((version, path) for version, path in sorted(found.items()) if path)


def runs(python: str) -> bool:
    """A pyenv shim is on the path whether or not a Python stands behind it."""
    return python != "" and subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


PYTHONS = dict(interpreters())


@cache
def record(python: str, hash_seed: str = "0", neighbours: int = 0) -> str:
    """What a process of its own prints, with warnings as errors and without any installed package."""
    done = subprocess.run(
        [python, "-S", "-W", "error", "-m", "tests.determinism.record", str(neighbours)],
        cwd=ROOT,
        env={"PYTHONPATH": os.pathsep.join(["src", "."]), "PYTHONHASHSEED": hash_seed, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5_000:]
    assert done.stderr == ""
    return done.stdout


def programs_of(text: str) -> dict[str, str]:
    """The record of each program and schedule; compared one by one, a difference is readable."""
    parts = (part.partition("\n") for part in text.split("== ")[1:])
    return {head: body for head, _, body in parts}


def test_what_is_asked_for_is_what_the_golden_record_holds() -> None:
    assert programs_of(record(sys.executable)) == programs_of(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("version", sorted((WANTED | set(PYTHONS)) - {THIS}), ids=str)
def test_another_python_asks_for_the_same(version: tuple[int, int]) -> None:
    if version not in PYTHONS:
        pytest.skip("there is no Python {}.{} on this machine".format(*version))
    assert programs_of(record(PYTHONS[version])) == programs_of(record(sys.executable))


@pytest.mark.parametrize("python", PYTHONS.values(), ids=map(str, PYTHONS))
@pytest.mark.parametrize("hash_seed", ["1", "4294967295", "random"])
def test_the_order_of_hashes_changes_nothing(python: str, hash_seed: str) -> None:
    assert programs_of(record(python, hash_seed)) == programs_of(record(sys.executable))


@pytest.mark.parametrize("neighbours", [7, 150])
def test_other_executions_in_the_same_process_change_nothing(neighbours: int) -> None:
    assert programs_of(record(sys.executable, neighbours=neighbours)) == programs_of(record(sys.executable))


@pytest.mark.parametrize("line", HISTORIES.read_text(encoding="utf-8").splitlines(), ids=lambda line: line.split()[0])
def test_a_stored_history_replays(line: str) -> None:
    """As an earlier version stored it: lines are added at a release and never changed."""
    name, schedule, rows = line.split(" ", 2)
    turns = wire.decode_turns([row.encode() for row in rows.split("\t")])
    execution = recorded_run(name, int(schedule)).fresh()
    replay(execution, turns)
    assert execution.applied == turns[-1].applied_through
    assert execution.closed
    execution.close()


def test_every_program_has_a_stored_history_that_tells_what_the_golden_record_does() -> None:
    golden = programs_of(GOLDEN.read_text(encoding="utf-8"))
    stored = [line.split(" ", 2) for line in HISTORIES.read_text(encoding="utf-8").splitlines()]
    assert {name for name, _, _ in stored} == set(PROGRAMS)
    for name, schedule, rows in stored:
        turns = wire.decode_turns([row.encode() for row in rows.split("\t")])
        assert "\n".join(text_of(map(bare, turns))) + "\n" == golden[f"{name}, schedule {schedule}"]
