"""In a Lambda function, what durably logs is one JSON object a line, and says which execution it is about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import logging
from durably.aws.logs import configured, log_keys
assert configured() is configured()
with log_keys(execution_id="x-1", attempt=2):
    logging.getLogger("durably.turn").error("execution %s is stalled: %s", "x-1", "why")
logging.getLogger("durably.orchestrator.pipeline").warning("from user code", extra={"execution_id": "x-2", "run": 1})
"""


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"src{os.pathsep}.", **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def test_log_lines_are_json_with_the_execution_they_are_about() -> None:
    lines = [json.loads(line) for line in run(PROGRAM, AWS_LAMBDA_FUNCTION_NAME="orchestrator").stdout.splitlines()]

    first, second = lines
    assert (first["level"], first["message"]) == ("ERROR", "execution x-1 is stalled: why")
    assert (first["execution_id"], first["attempt"], first["service"]) == ("x-1", 2, "durably")
    assert (second["message"], second["execution_id"]) == ("from user code", "x-2")
    assert "attempt" not in second


def test_elsewhere_logging_is_left_to_whoever_runs_the_process() -> None:
    program = "from durably.aws.logs import configured, log_keys\nassert configured() is None\nwith log_keys(a=1): pass"
    assert run(program).stdout == ""
