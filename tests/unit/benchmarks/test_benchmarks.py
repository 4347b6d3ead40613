from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.table import CASES

PROMISED = {
    "replay_us_per_activity",
    "replay_gathered_us_per_activity",
    "replay_decoded_us_per_activity",
    "embedded_sequential_ms_per_step",
    "embedded_fanout_s",
    "embedded_throughput_wf_per_s",
    "hello_world_s",
    "hello_world_rss_mb",
    "recovery_s",
    "sqlite_full_commits_per_s",
}
CHEAP = ("replay_us_per_activity", "replay_gathered_us_per_activity", "embedded_fanout_s")


def test_each_promised_case_is_in_the_table_once() -> None:
    names = [case.name for case in CASES]
    assert sorted(names) == sorted(PROMISED)


def test_stdout_holds_one_json_object_a_line_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--quick", "--directory", str(tmp_path), *(f"--only={name}" for name in CHEAP)])
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert {line["case"] for line in lines} == set(CHEAP)
    assert {(line["unit"], line["n"]) for line in lines} == {("us", 100), ("us", 1_000), ("s", 100)}
    assert all(list(line) == ["case", "value", "unit", "n"] and line["value"] > 0 for line in lines)
    assert all(name in err for name in CHEAP)


def test_the_databases_are_removed_afterwards(tmp_path: Path) -> None:
    main(["--quick", "--directory", str(tmp_path), "--only=embedded_fanout_s"])
    assert list(tmp_path.iterdir()) == []


def test_a_case_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only=warp_speed"])
    out, err = capsys.readouterr()
    assert out == ""
    assert "warp_speed" in err
