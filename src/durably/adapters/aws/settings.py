"""Names of the deployment's resources, as the template hands them to each function."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, cast

from durably.core.errors import ConfigurationError

_VARIABLES = {
    "deployment": "DURABLY_DEPLOYMENT",
    "table": "DURABLY_TABLE",
    "bucket": "DURABLY_BUCKET",
    "events_queue": "DURABLY_EVENTS_QUEUE",
    "delay_queue": "DURABLY_DELAY_QUEUE",
    "delay_queue_arn": "DURABLY_DELAY_QUEUE_ARN",
    "delay_dead_letters_arn": "DURABLY_DELAY_DEAD_LETTERS_ARN",
    "schedule_group": "DURABLY_SCHEDULE_GROUP",
    "schedule_role": "DURABLY_SCHEDULE_ROLE",
    "token_secret": "DURABLY_TOKEN_SECRET",
    "callback_url": "DURABLY_CALLBACK_URL",
    "activity_queues": "DURABLY_ACTIVITY_QUEUES",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSettings:
    """What a function of this deployment may reach; empty where it needs none of that.

    Attributes:
        deployment: signed into task tokens, so that a token means nothing elsewhere.
        table: name of the DynamoDB table.
        bucket: name of the S3 bucket for bodies that fit no item and no message.
        events_queue: URL of the FIFO queue that events and wakes travel through.
        delay_queue: URL of the standard queue where messages wait for up to 900 s.
        delay_queue_arn: its ARN, the target of schedules.
        delay_dead_letters_arn: of its dead-letter queue, where what schedules could not deliver goes, too.
        schedule_group: name of the EventBridge Scheduler group.
        schedule_role: ARN of the role that the scheduler takes on.
        token_secret: ARN or name of the secret that holds the token keys.
        callback_url: base of callback addresses, without a trailing slash.
        activity_queues: URL of the queue of each activity, by the activity's persisted name.
        parallel: how many requests to one service may be under way at once.
        page_items: items per page of a query; None leaves it to DynamoDB (1 MB).
    """

    deployment: str = ""
    table: str = ""
    bucket: str = ""
    events_queue: str = ""
    delay_queue: str = ""
    delay_queue_arn: str = ""
    delay_dead_letters_arn: str = ""
    schedule_group: str = ""
    schedule_role: str = ""
    token_secret: str = ""
    callback_url: str = ""
    activity_queues: Mapping[str, str] = field(default_factory=dict[str, str])
    parallel: int = 16
    page_items: int | None = None

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, *, needs: Iterable[str] = ("deployment", "table")
    ) -> Self:
        """The settings that the variables `DURABLY_*` hold.

        Args:
            environment: instead of the process's own.
            needs: names of the attributes that must be there.

        Raises:
            ConfigurationError: one of them is missing, or the activity queues are no JSON of the right shape.
        """
        found = os.environ if environment is None else environment
        missing = [_VARIABLES[name] for name in needs if not found.get(_VARIABLES[name])]
        if missing:
            raise ConfigurationError(
                f"expected the environment variables {', '.join(missing)}, and they are not set; "
                "deploy the function with the template's Globals, or set them by hand."
            )
        texts = {name: found.get(variable, "") for name, variable in _VARIABLES.items() if name != "activity_queues"}
        texts["callback_url"] = texts["callback_url"].rstrip("/")
        settings = cls(activity_queues=_by_activity(found.get(_VARIABLES["activity_queues"]) or "{}"))
        return replace(settings, **cast("dict[str, Any]", texts))


def _by_activity(text: str) -> dict[str, str]:
    """`{"queue URL": ["activity", ...]}`, inverted."""
    try:
        by_queue = cast("object", json.loads(text))
    except ValueError:
        by_queue = None
    queues: dict[str, str] = {}
    for queue, names in cast("dict[str, object]", by_queue).items() if isinstance(by_queue, dict) else ():
        for name in cast("list[object]", names) if isinstance(names, list) else (None,):
            if not isinstance(name, str) or name in queues:
                raise _misshapen(f"{name!r} at {queue} is no name, or has two queues")
            queues[name] = queue
    if not isinstance(by_queue, dict):
        raise _misshapen("it is no JSON object")
    return queues


def _misshapen(reason: str) -> ConfigurationError:
    return ConfigurationError(
        f'{_VARIABLES["activity_queues"]} should look like {{"queue URL": ["activity", ...]}}, but {reason}; '
        "`durably template` writes it."
    )
