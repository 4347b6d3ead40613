"""What needs processes of its own: the first result of a fresh one, and life after `kill -9`."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.measuring import Bench, Measurement, middle

_ROOT = Path(__file__).parents[1]
_PATIENCE_S = 60.0
_STEPS = 20
_TURNS = "SELECT count(*) FROM turns"
_OPEN = "SELECT count(*) FROM records WHERE status <> 'completed'"


def hello_seconds(bench: Bench) -> Iterator[Measurement]:
    samples = [seconds for seconds, _ in _hellos(bench)]
    yield Measurement(middle(samples), len(samples))


def hello_megabytes(bench: Bench) -> Iterator[Measurement]:
    samples = [megabytes for _, megabytes in _hellos(bench)]
    yield Measurement(middle(samples), len(samples))


def recovery(bench: Bench) -> Iterator[Measurement]:
    executions = bench.sizes((200,), (50,))[0]
    samples = [_recover(bench.file(), executions) for _ in range(bench.repeats(5, 3))]
    first, done = (middle([sample[i] for sample in samples]) for i in range(2))
    yield Measurement(first, executions, {"all_done_s": done})


def _hellos(bench: Bench) -> list[tuple[float, float]]:
    """Seconds and MB of some fresh processes; one before them fills the caches of bytecode and of files."""
    _hello(bench.file())
    return [_hello(bench.file()) for _ in range(bench.repeats(7, 3))]


def _hello(file: Path) -> tuple[float, float]:
    begun = time.perf_counter()
    with _program("hello", file) as process:
        assert process.stdout is not None
        greeting = process.stdout.readline()
        took = time.perf_counter() - begun
        megabytes = process.stdout.readline()
    assert greeting == "Hello, World!\n", f"the hello program said {greeting!r}"
    return took, float(megabytes)


def _recover(file: Path, executions: int) -> tuple[float, float]:
    """Seconds from the spawn of a process that follows a killed one to its first turn, and until all is done."""
    goal = executions * (_STEPS + 2) * 2 // 5
    with _program("adding", file, executions, _STEPS) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with closing(_reader(file)) as reader:
            _wait(lambda: _number(reader, _TURNS) >= goal)
            process.kill()
            process.wait()
            before = _number(reader, _TURNS)
            assert _number(reader, _OPEN), "everything was done before the kill"
            begun = time.perf_counter()
            with _program("adding", file, 0, 0) as successor:
                _wait(lambda: _number(reader, _TURNS) > before)
                first = time.perf_counter() - begun
                _wait(lambda: _number(reader, _OPEN) == 0)
                done = time.perf_counter() - begun
                successor.send_signal(signal.SIGTERM)
    return first, done


@contextmanager
def _program(name: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A program of `benchmarks.programs`, killed at the end if it has not ended by itself."""
    command = [sys.executable, "-m", f"benchmarks.programs.{name}", *map(str, arguments)]
    paths = os.pathsep.join([str(_ROOT / "src"), str(_ROOT)])
    with subprocess.Popen(
        command, cwd=_ROOT, env=os.environ | {"PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
            process.wait(_PATIENCE_S)
        finally:
            process.kill()


def _reader(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, isolation_level=None)


def _number(reader: sqlite3.Connection, statement: str) -> int:
    number: int = reader.execute(statement).fetchone()[0]
    return number


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing happened for {_PATIENCE_S} s")
        time.sleep(0.01)  # more often, and the counting would compete with what it measures
