"""Payloads by size."""

from __future__ import annotations

import dataclasses
import random
import string
from typing import Any

from durably.core.events import ExecutionStarted
from durably.ports.backend import Creation
from tests.contract.builders import creation
from tests.contract.harness import START_MS


def noise(size: int) -> str:
    """JSON text that hardly compresses."""
    return f'"{"".join(random.Random(7).choices(string.ascii_letters + string.digits, k=size))}"'


def started_with(input_: str, **more: Any) -> Creation:
    start = creation(**more)
    started = ExecutionStarted(orchestrator="route", input=input_, seed=1, python="3.11", at_ms=START_MS)
    return dataclasses.replace(start, turn=dataclasses.replace(start.turn, inbound=(started,)))
