"""Last: what roles were allowed, against what their functions asked for in all the tests before. ministack checks each
call against the role's policies, so all that was needed was allowed; here, that all that was allowed was needed.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

from tests.cloud.stack import Stack
from tests.infra.reading import FUNCTION, POLICY, resources

# Lambda polls in the function's name, the scheduler is handed the role, and S3 looks who may know what is not there.
BY_OTHERS = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "iam:PassRole", "s3:ListBucket"}

# ministack's CloudTrail knows requests to the scheduler by their method only.
RECORDED_AS = {"scheduler:CreateSchedule": "POST.scheduler", "scheduler:DeleteSchedule": "DELETE.scheduler"}

NOT_SEEN_HERE = {
    ("Sweeper", "dynamodb:PutItem"): "it keeps a cursor once it has seen executions that are a few minutes old",
    ("Sweeper", "s3:GetObject"): "for an execution whose start died half-way, with a large input",
    ("Sweeper", "sqs:SendMessage*"): "for an execution whose start died half-way",
    ("UserOnboardingActivities", "s3:GetObjectVersion"): "for a CSV in a bucket that keeps versions",
}


def access_keys(stack: Stack) -> dict[str, str]:
    """The access key under which each function calls, by logical id: ministack makes it up from two ARNs."""
    keys: dict[str, str] = {}
    for function in resources(FUNCTION):
        found = stack.client("lambda").get_function_configuration(FunctionName=stack.function(function))
        digest = hashlib.sha256(f"{found['FunctionArn']}:{found['Role']}".encode()).hexdigest()
        keys[function] = f"ASIA{digest[:16].upper()}"
    return keys


def made(stack: Stack, access_key: str, action: str) -> bool:
    """Whether somebody made calls of this kind."""
    name = RECORDED_AS.get(action, action.split(":")[1])
    names = [name.removesuffix("*"), name.removesuffix("*") + "Batch"] if name.endswith("*") else [name]
    return any(
        stack.client("cloudtrail").lookup_events(
            LookupAttributes=[
                {"AttributeKey": "AccessKeyId", "AttributeValue": access_key},
                {"AttributeKey": "EventName", "AttributeValue": each},
            ]
        )["Events"]
        for each in names
    )


def actions(policy: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    for statement in policy["Statement"]:
        found |= {statement["Action"]} if isinstance(statement["Action"], str) else set(statement["Action"])
    return found - BY_OTHERS


def test_nobody_was_refused_anything(stories: Stack, routing: Stack) -> None:
    log = stories.emulator.log.read_text()
    assert f"ESM: Lambda {stories.function('RoutingOrchestrator')} processed" in log
    assert not [line[:600] for line in log.splitlines() if "AccessDenied" in line]


def test_every_permission_is_used(stories: Stack, routing: Stack) -> None:
    for stack in (stories, routing):
        answer = stack.client("lambda").invoke(FunctionName=stack.function("Sweeper"), Payload=b"{}")
        assert "FunctionError" not in answer, answer["Payload"].read()
    keys = {stack.deployment.stack: access_keys(stack) for stack in (stories, routing)}

    def used(function: str, action: str) -> bool:
        return any(made(stack, keys[stack.deployment.stack][function], action) for stack in (stories, routing))

    left = set[tuple[str, str]]()
    sharers: dict[str, list[str]] = defaultdict(list)
    for function, properties in resources(FUNCTION).items():
        for policy in properties["Policies"]:
            if "Ref" in policy:
                sharers[policy["Ref"]].append(function)
            else:
                left |= {(function, action) for action in actions(policy) if not used(function, action)}
    for name, functions in sharers.items():
        allowed = actions(resources(POLICY)[name]["PolicyDocument"])
        left |= {(name, action) for action in allowed if not any(used(function, action) for function in functions)}
    pauses = {(name, "sqs:ChangeMessageVisibility*") for name in (*resources(FUNCTION), *sharers)}
    assert sorted(left - pauses - NOT_SEEN_HERE.keys()) == []
