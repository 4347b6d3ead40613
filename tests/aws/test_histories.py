"""`durably export` and `durably replay` on a deployment."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from durably.cli import main
from tests.aws import programs
from tests.aws.driver import Cloud
from tests.aws.payloads import REGION

EDITED = """
import asyncio
from durably import Context, orchestrator

@orchestrator
async def sleeper(ctx: Context, seconds: float) -> float:
    await asyncio.sleep({delay})
    return 0.0
"""


def test_a_deployments_histories_are_exported_and_replayed(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DURABLY_TABLE", cloud.settings.table)
    monkeypatch.setenv("DURABLY_BUCKET", cloud.settings.bucket)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setattr(sys, "path", [*sys.path])
    cloud.client.start("nap-1", programs.sleeper, 1_200)
    cloud.run(until=lambda: len(cloud.backend.load_turns(cloud.run_of("nap-1"))) == 2)

    def replayed(*arguments: str) -> tuple[int, str]:
        code = main(["replay", *arguments, "--json"])
        (told,) = json.loads(capsys.readouterr().out)
        return code, told["verdict"]

    file = tmp_path / "nap-1.json"
    assert main(["export", "nap-1", "--aws", "--output", str(file)]) == 0
    for name, delay in (("same", "seconds"), ("other", "seconds + 1")):
        (tmp_path / f"{name}_flows.py").write_text(EDITED.format(delay=delay))
    same, other = (["--from", str(tmp_path / f"{name}_flows.py")] for name in ("same", "other"))
    assert replayed("--aws", *same) == replayed(str(file), *same) == (0, "agrees")
    assert replayed("--aws", *other) == replayed(str(file), *other) == (1, "diverged")
    assert replayed("--aws", "--status", "running", *same) == (0, "agrees")
