"""The commands that answer for the outside world where a callback never will."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from urllib.parse import urlsplit

from durably.adapters.system import SystemClock, SystemEntropy
from durably.cli.arguments import Options
from durably.cli.opening import Opened, opened
from durably.cli.output import print_json
from durably.core.errors import ActivityNotAwaitedError, ClientError, PayloadError, TokenError
from durably.runtime.callbacks import beat_attempt
from durably.runtime.runtime import Essentials


def complete(options: Options) -> int:
    """`durably complete`."""
    result = _json(options.result, "result")
    with opened(options) as file:
        file.client.complete_activity(options.execution_id, options.activity, result)
    return _said(options, "completed")


def fail(options: Options) -> int:
    """`durably fail`."""
    with opened(options) as file:
        file.client.fail_activity(options.execution_id, options.activity, options.message)
    return _said(options, "failed")


def heartbeat(options: Options) -> int:
    """`durably heartbeat`."""
    if options.token is None and options.activity is None:
        print(
            f"durably: Which activity of {options.execution_id}? Its number, as `durably show` says, follows the id.",
            file=sys.stderr,
        )
        return 2
    details = None if options.details is None else _json(options.details, "details")
    with opened(options) as file:
        if options.token is not None:
            cancelled = _beat_token(file, options.token, details)
        else:
            cancelled = file.client.heartbeat_activity(options.execution_id, options.activity, details)
    if options.json:
        print_json({"cancelled": cancelled})
    else:
        print("nobody waits for it any more: stop" if cancelled else "recorded; it is still waited for")
    return 0


def _beat_token(file: Opened, token: str, details: object) -> bool:
    """A heartbeat under a token, or under the URL that holds it."""
    if "/" in token:
        token = urlsplit(token).path.partition("/callbacks/")[2].partition("/")[0]
    try:
        claims = file.signer().verify(token)
    except TokenError as error:
        raise ClientError("This is no token, and no URL with a token, of a callback here.") from error
    surroundings = Essentials(
        backend=file.backend, registry=file.client.registry, clock=SystemClock(), entropy=SystemEntropy()
    )
    text = None if details is None else json.dumps(details, ensure_ascii=False, separators=(",", ":"))
    answer = beat_attempt(surroundings, claims, text)
    if answer.verdict != "accepted":
        raise ActivityNotAwaitedError(answer.message)
    return bool(answer.cancelled)


def _json(text: str, what: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"The {what} is not JSON: {error}. Quote it for the shell: '{{...}}'.") from error


def _said(options: Options, outcome: str) -> int:
    if options.json:
        print_json({"execution_id": options.execution_id, "activity": options.activity, "outcome": outcome})
    else:
        print(f"{outcome} activity {options.activity} of {options.execution_id}")
    return 0


COMPLETIONS: dict[str, Callable[[Options], int]] = {"complete": complete, "fail": fail, "heartbeat": heartbeat}
