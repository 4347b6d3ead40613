"""A CloudFormation stack around a deployment on moto, whose own CloudFormation wants half of AWS installed."""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest

import durably.adapters.aws
from durably.adapters.aws import AwsSettings, Clients
from tests.aws.payloads import REGION

STACK = "prod"


def environment(settings: AwsSettings) -> dict[str, str]:
    """What the template's Globals hand to each function."""
    queues = defaultdict[str, list[str]](list)
    for activity, queue in settings.activity_queues.items():
        queues[queue].append(activity)
    names = {
        "DURABLY_DEPLOYMENT": settings.deployment,
        "DURABLY_TABLE": settings.table,
        "DURABLY_BUCKET": settings.bucket,
        "DURABLY_EVENTS_QUEUE": settings.events_queue,
        "DURABLY_DELAY_QUEUE": settings.delay_queue,
        "DURABLY_DELAY_QUEUE_ARN": settings.delay_queue_arn,
        "DURABLY_DELAY_DEAD_LETTERS_ARN": settings.delay_dead_letters_arn,
        "DURABLY_SCHEDULE_GROUP": settings.schedule_group,
        "DURABLY_SCHEDULE_ROLE": settings.schedule_role,
        "DURABLY_TOKEN_SECRET": settings.token_secret,
        "DURABLY_CALLBACK_URL": settings.callback_url,
        "DURABLY_ACTIVITY_QUEUES": json.dumps(queues),
    }
    return {name: value for name, value in names.items() if value}


def name_stack(settings: AwsSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the command line finds that deployment as the stack `prod`."""
    told = environment(settings)

    def describe(params: dict[str, Any], **_: Any) -> Any:
        asked = params["body"]
        if (asked["StackName"], asked["LogicalResourceId"]) != (STACK, "Timers"):
            error = {"Code": "ValidationError", "Message": f"Stack '{asked['StackName']}' does not exist"}
            return SimpleNamespace(status_code=400), {"Error": error}
        return SimpleNamespace(status_code=200), {"StackResourceDetail": {"PhysicalResourceId": "prod-Timers-1"}}

    def configure(params: dict[str, Any], **_: Any) -> Any:
        assert params["url_path"].split("/")[-2:] == ["prod-Timers-1", "configuration"]
        return SimpleNamespace(status_code=200), {"Environment": {"Variables": told}}

    def observe(client: Any) -> None:
        client.meta.events.register("before-call.cloudformation.DescribeStackResource", describe)
        client.meta.events.register("before-call.lambda.GetFunctionConfiguration", configure)

    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setattr(durably.adapters.aws, "Clients", functools.partial(Clients, observers=[observe]))
