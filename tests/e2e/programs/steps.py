"""A runtime in a process of its own, made to be killed. Argument: its directory.

Each run of an activity function appends one line to `runs.log`: process, execution, step, attempt, idempotency key.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

from durably import Context, RetryPolicy, activity, attempt_info, orchestrator
from durably.embedded import Embedded

STEPS = 5
DATABASE = "steps.db"
LOG = "runs.log"
GATE = "gate"


def log_run(step: int) -> None:
    info = attempt_info()
    line = f"{os.getpid()} {info.execution_id} {step} {info.attempt} {info.idempotency_key}\n"
    file = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


@activity
def add(total: int, step: int) -> int:
    log_run(step)
    return total + step


@activity
async def add_async(total: int, step: int) -> int:
    log_run(step)
    return total + step


@activity
def add_slowly(total: int, step: int) -> int:
    log_run(step)
    time.sleep(0.02)
    return total + step


@activity(at_most_once=True, retry=RetryPolicy(max_attempts=0, initial_interval=timedelta(milliseconds=20)))
def add_at_most_once(total: int, step: int) -> int:
    log_run(step)
    time.sleep(0.01)
    return total + step


@orchestrator
async def five_steps(ctx: Context) -> int:
    total = 0
    for step in range(1, STEPS + 1):
        total = await (add_async if step % 2 else add)(total, step)
    return total


@orchestrator
async def five_slow_steps(ctx: Context) -> int:
    total = 0
    for step in range(1, STEPS + 1):
        total = await add_slowly(total, step)
    return total


@orchestrator
async def five_steps_at_most_once(ctx: Context) -> int:
    total = 0
    for step in range(1, STEPS + 1):
        total = await add_at_most_once(total, step)
    return total


@orchestrator
async def behind_a_gate(ctx: Context) -> int:
    hold_the_turn()
    return await add(0, 1)


def hold_the_turn() -> None:
    """As long as the gate is there the process stays inside this turn: there it can be killed."""
    while Path(GATE).exists():
        time.sleep(0.005)


ORCHESTRATORS = (five_steps, five_slow_steps, five_steps_at_most_once, behind_a_gate)
ACTIVITIES = (add, add_async, add_slowly, add_at_most_once)

if __name__ == "__main__":
    os.chdir(sys.argv[1])
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    with Embedded(DATABASE, orchestrators=ORCHESTRATORS, activities=ACTIVITIES, http=None):
        print("ready", flush=True)
        signal.sigwait([signal.SIGTERM])
