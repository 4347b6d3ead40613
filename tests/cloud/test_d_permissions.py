"""Last: what roles were allowed, against what their functions asked for in all the tests before. ministack checks each
call against the role's policies, so all that was needed was allowed; here, that all that was allowed was needed.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections import defaultdict
from typing import Any

from tests.cloud.stack import Stack
from tests.infra.reading import FUNCTION, resources, template

SERVICES = {"dynamodb", "sqs", "s3", "scheduler", "secretsmanager"}

# Lambda polls in the function's name, and the scheduler is handed the role.
BY_OTHERS = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "iam:PassRole"}

NOT_SEEN_HERE = {
    ("Sweeper", "dynamodb:PutItem"): "it keeps a cursor once it has seen executions that are a few minutes old",
    ("Sweeper", "s3:GetObject"): "for an execution whose start died half-way, with a large input",
    ("Sweeper", "sqs:SendMessage*"): "for an execution whose start died half-way",
}


def calls(stack: Stack) -> dict[str, set[str]]:
    """What each function called, by logical id."""
    owners: dict[str, str] = {}
    lambda_ = stack.client("lambda")
    for function in resources(FUNCTION):
        found = lambda_.get_function_configuration(FunctionName=stack.function(function))
        digest = hashlib.sha256(f"{found['FunctionArn']}:{found['Role']}".encode()).hexdigest()
        owners[f"ASIA{digest[:16].upper()}"] = function  # how ministack makes up a role's access key
    made: dict[str, set[str]] = defaultdict(set)
    for page in stack.client("cloudtrail").get_paginator("lookup_events").paginate():
        for event in page["Events"]:
            service = event["EventSource"].split(".")[0]
            if event.get("Username") in owners and service in SERVICES:
                action = event["EventName"].removesuffix("Batch")
                made[owners[event["Username"]]].add(f"{service}:{action}")
    return made


def actions(policy: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    for statement in policy["Statement"]:
        found |= {statement["Action"]} if isinstance(statement["Action"], str) else set(statement["Action"])
    return found - BY_OTHERS


def unused(allowed: set[str], made: set[str]) -> set[str]:
    return {action for action in allowed if not fnmatch.filter(made, action)}


def test_nobody_was_refused_anything(stories: Stack, routing: Stack) -> None:
    log = stories.emulator.log.read_text()
    assert f"ESM: Lambda {stories.function('RoutingOrchestrator')} processed" in log
    assert not [line[:600] for line in log.splitlines() if "AccessDenied" in line]


def test_every_permission_is_used(stories: Stack, routing: Stack) -> None:
    for stack in (stories, routing):
        answer = stack.client("lambda").invoke(FunctionName=stack.function("Sweeper"), Payload=b"{}")
        assert "FunctionError" not in answer, answer["Payload"].read()
    made = calls(stories)
    for function, more in calls(routing).items():
        made[function] |= more
    left = set[tuple[str, str]]()
    sharers: dict[str, set[str]] = defaultdict(set)
    for function, properties in resources(FUNCTION).items():
        for policy in properties["Policies"]:
            if "Ref" in policy:
                sharers[policy["Ref"]] |= made[function]
            else:
                left |= {(function, action) for action in unused(actions(policy), made[function])}
    for name, by_anyone in sharers.items():
        document = template()["Resources"][name]["Properties"]["PolicyDocument"]
        left |= {(name, action) for action in unused(actions(document), by_anyone)}
    pauses = {(function, "sqs:ChangeMessageVisibility*") for function in resources(FUNCTION)}
    assert left - pauses <= set(NOT_SEEN_HERE)
