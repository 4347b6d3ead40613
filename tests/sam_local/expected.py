"""What each function answers to each event of events/, on a stack that has seen nothing yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from demo.story import STORIES
from tests.cloud.emulator import ROOT

Check = Callable[[Any], bool]


def all_taken(answer: Any) -> bool:
    return bool(answer == {"batchItemFailures": []})


def status(*codes: int) -> Check:
    return lambda answer: answer["statusCode"] in codes


def shows(code: int, key: str, value: object) -> Check:
    return lambda answer: answer["statusCode"] == code and json.loads(answer["body"])[key] == value


def nothing(answer: Any) -> bool:
    return answer is None


def swept(answer: Any) -> bool:
    return bool(answer.keys() == {"looked_at", "woken", "stalled"})


# In this order: the API's first event starts the execution that the others ask about.
EVENTS: dict[str, dict[str, Check]] = {
    "Api": {
        "api_start": status(200, 201),
        "api_describe": shows(200, "status", "running"),
        "api_history": lambda answer: json.loads(answer["body"])["events"][0]["event"] == "ExecutionStarted",
        "api_list": lambda answer: json.loads(answer["body"])["executions"][0]["execution_id"] == "packet-0001",
        "api_result": shows(200, "result", None),
        "api_signal": status(202),
        "api_signal_with_start": status(200),
        "api_update": status(202),
        "api_query": status(422),  # it answers none
        "api_suspend": status(202),
        "api_resume": status(202),
        "api_retry": status(409),  # it is running
        "api_reset": status(400),  # it has not taken a turn yet, so there is no event to go back to
        "api_fork": status(400),
        "api_complete_activity": status(404),  # it awaits no callback
        "api_fail_activity": status(404),
        "api_heartbeat_activity": status(404),
        "api_purge": status(409),
        "api_purge_closed": shows(200, "executions", []),
        "api_cancel": status(202),
        "api_terminate": status(202),
        "api_openapi": shows(200, "openapi", "3.1.0"),
    },
    "RoutingOrchestrator": {
        "orchestrator_wake": all_taken,
        "orchestrator_batch": all_taken,
        "orchestrator_activity_completed": all_taken,
    },
    "RoutingActivities": {"activities_get_route": all_taken, "activities_transmit": all_taken},
    "GreetingsActivities": {"activities_hello_trainer": all_taken},
    "PokemonCaptureActivities": {"activities_paralyze": all_taken},
    "UserOnboardingActivities": {"activities_import_users": all_taken},
    "Triggers": {
        "triggers_users": all_taken,
        "triggers_approval": shows(202, "execution_id", "user-onboarding:users"),
        # the stories take a CSV that S3 tells of, and let go of all others
        "triggers/s3": nothing,
        "triggers/s3_eventbridge": nothing,
        "triggers/s3_sqs": all_taken,
        "triggers/eventbridge": nothing,
        "triggers/sns": nothing,
        "triggers/sns_sqs": all_taken,
        "triggers/sqs": all_taken,
        "triggers/schedule": nothing,
        "triggers/scheduler": nothing,
        "triggers/http": status(404),
    },
    "Timers": {"timers_timer": all_taken, "timers_early": all_taken, "timers_callback_deadline": all_taken},
    # its tokens were signed elsewhere
    "Callbacks": {name: status(401) for name in ("callbacks_complete", "callbacks_failure", "callbacks_heartbeat")},
    "DeadLetters": {
        "dead_letters_event": all_taken,
        "dead_letters_timer": all_taken,
        "dead_letters_activity": all_taken,
    },
    "Sweeper": {"sweeper": swept},
}


def gaps(functions: Iterable[str]) -> list[str]:
    """Functions of the template and files in events/ that are not here, and the reverse."""
    folder = ROOT / "events"
    files = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.json")}
    known = {name for events in EVENTS.values() for name in events} | set(STORIES)  # theirs are inputs of orchestrators
    return sorted((files ^ known) | (set(functions) ^ EVENTS.keys()))
