from __future__ import annotations

from functools import partial

from tests.cloud.source import set_version
from tests.cloud.stack import Stack, eventually


def slept(stack: Stack, execution_id: str) -> bool:
    return any(event["event"] == "TimerStarted" for event in stack.history(execution_id))


def test_executions_outlive_redeployments(stories: Stack) -> None:
    """Version 2 changes what is ahead of one and what is behind the other; version 3 takes the latter back."""
    deployment = stories.deployment
    pause = 2 * deployment.seconds + 10  # longer than a redeployment takes
    stories.start("is_upgraded", "upgraded", seconds=pause)
    stories.start("is_broken", "broken", seconds=pause)
    for execution_id in ("upgraded", "broken"):
        eventually(partial(slept, stories, execution_id), what=f"{execution_id} to fall asleep")

    set_version(deployment.project, 2)
    deployment.bring_up()
    assert stories.result("upgraded", within=pause + 90) == [1, 20]
    failure = stories.stalled("broken", within=pause + 90)["failure"]
    assert "echo" in failure["message"]
    assert "orchestrators/stories.py" in failure["message"]

    set_version(deployment.project, 3)
    deployment.bring_up()
    assert stories.result("broken", within=300) == 1
