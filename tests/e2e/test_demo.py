"""`python -m demo.packet_routing`, as a user runs it: three processes, real HTTP, kill -9."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.fate import Fate, next_provider

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GET_ROUTE_ATTEMPTS = 3
KEYS = [
    "id",
    "source",
    "destination",
    "contents",
    "failed_route_providers",
    "current_route_provider",
    "status",
]


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "demo.packet_routing", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def demo(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a whole run."""
    with started(*arguments) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def outcome(fate: Fate, packet_id: str, *, max_attempts: int = 4) -> tuple[str, list[str], str | None]:
    """What must become of a packet: status, routes that failed, route that delivered."""
    failed: list[str] = []
    while len(failed) < max_attempts:
        if all(fate.network_fails(packet_id, failed, attempt + 1) for attempt in range(GET_ROUTE_ATTEMPTS)):
            break
        provider = next_provider(failed)
        assert provider is not None
        delay = fate.acknowledged_after(packet_id, provider)
        if delay is not None and delay < fate.deadline:
            return "DELIVERED", failed, provider
        failed.append(provider)
    return "FAILED", failed, None


def outcomes(packets: Sequence[dict[str, Any]]) -> dict[str, tuple[str, list[str], str | None]]:
    return {
        packet["id"]: (packet["status"], packet["failed_route_providers"], packet["current_route_provider"])
        for packet in packets
    }


def test_one_packet_is_printed_as_json_though_its_runtime_is_killed() -> None:
    # A long deadline, so that the acknowledgement (after 0.8 s) is still on the way when the kill comes.
    code, out, err = demo("--seed=7", "--kill", "--deadline=4", "--max-delay=6")

    assert code == 0, err
    packet = json.loads(out)
    assert list(packet) == KEYS
    assert (packet["id"], packet["contents"]) == ("packet-0001", "SGVsbG8=")
    assert re.search(r"kill -9 of the runtime \(pid \d+\): 0 of 1 packets done, 1 acknowledgement on the way", err)
    assert re.search(r"back after \d\.\d\d s, same file, same address", err)
    assert re.search(r"acknowledgement arrived after \d\.\d\d s", err)


def test_packets_come_out_as_fate_has_it_with_and_without_a_kill() -> None:
    # Deadlines run on while the runtime is dead. What is acknowledged in time at all is acknowledged within a quarter
    # of the deadline, so results can be told as long as the restart takes less than the rest: here 1.5 seconds.
    arguments = ["--packets=12", "--seed=13", "--deadline=2", "--max-delay=3"]
    with started(*arguments) as calm, started(*arguments, "--kill") as killed:
        calm_out, calm_err = calm.communicate(timeout=60)
        killed_out, killed_err = killed.communicate(timeout=60)

    assert (calm.returncode, killed.returncode) == (0, 0), calm_err + killed_err
    fate = Fate(seed=13, deadline=2, max_delay=3)
    expected = {packet_id: outcome(fate, packet_id) for packet_id in (f"packet-{n:04}" for n in range(1, 13))}
    assert outcomes([json.loads(line) for line in calm_out.splitlines()]) == expected, calm_err
    assert outcomes([json.loads(line) for line in killed_out.splitlines()]) == expected, killed_err
    assert killed_out == calm_out
    assert "kill -9" in killed_err
    assert "too late" in calm_err  # the seed was chosen for its late acknowledgements and its packets given up
    assert {status for status, _, _ in expected.values()} == {"DELIVERED", "FAILED"}


def test_packets_that_nobody_acknowledges_are_given_up_after_four_routes() -> None:
    code, out, err = demo("--packets=2", "--callback-chance=0", "--deadline=0.2", "--error-chance=0")

    assert code == 0, err
    given_up = ("FAILED", ["RouteA", "RouteB", "RouteC", "RouteD"], None)
    packets = [json.loads(line) for line in out.splitlines()]
    assert outcomes(packets) == {"packet-0001": given_up, "packet-0002": given_up}


def test_a_packet_for_which_no_route_is_found_is_given_up() -> None:
    code, out, err = demo("--error-chance=1")

    assert code == 0, err
    assert outcomes([json.loads(out)]) == {"packet-0001": ("FAILED", [], None)}
    assert "gave up on finding a route" in err


def test_packets_of_a_file_that_was_kept_are_taken_up_where_they_were(tmp_path: Path) -> None:
    arguments = ["--packets=3", "--max-delay=0.1", "--callback-chance=1", f"--db={tmp_path / 'kept.db'}"]
    first, second = demo(*arguments), demo(*arguments)

    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert second[1] == first[1]
    assert "0 transmissions" in second[2]


@pytest.mark.parametrize(
    "arguments", [["--packets=0"], ["--error-chance=2"], ["--deadline=-1"], ["--deadline=nan"], ["--db"]], ids=repr
)
def test_a_wrong_flag_is_refused_before_anything_runs(arguments: list[str]) -> None:
    code, out, err = demo(*arguments)

    assert (code, out) == (2, "")
    assert "error: argument" in err


def test_a_database_that_cannot_be_opened_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("this is no database, and has to stay as it is\n" * 20)
    code, out, err = demo(f"--db={tmp_path / 'notes.txt'}")

    assert (code, out) == (1, "")
    assert "not a SQLite database" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("by", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)],
    ids=["Ctrl-C", "SIGTERM", "SIGKILL"],
)
def test_however_the_demo_ends_its_processes_end_with_it(by: signal.Signals, code: int, tmp_path: Path) -> None:
    with started(
        "--callback-chance=0", "--error-chance=0", "--deadline=20", f"--db={tmp_path / 'ended.db'}"
    ) as process:
        assert process.stderr is not None
        said = ""
        while "RouteA transmits" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        children = [int(pid) for pid in re.findall(r"\(pid (\d+)\)", said)]
        assert len(children) == 2

        process.send_signal(by)
        _, err = process.communicate(timeout=30)  # ends when nobody holds its pipes any more, children included

    assert process.returncode == code
    assert "Traceback" not in err
    give_up_at = time.monotonic() + 10
    while any(map(is_alive, children)):
        assert time.monotonic() < give_up_at, "a child outlived the demo"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Of a process that is not ours to wait for; a zombie nobody has buried yet is dead."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    try:
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
