"""The commands that answer for the outside world where a callback never will."""

from __future__ import annotations

import json

from durably.cli.arguments import Options
from durably.cli.opening import opened
from durably.cli.output import print_json
from durably.core.errors import PayloadError


def complete(options: Options) -> int:
    """`durably complete`."""
    try:
        result = json.loads(options.result)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"The result is not JSON: {error}. Quote it for the shell: '{{...}}'.") from error
    with opened(options) as file:
        file.client.complete_activity(options.execution_id, options.activity, result)
    return _said(options, "completed")


def fail(options: Options) -> int:
    """`durably fail`."""
    with opened(options) as file:
        file.client.fail_activity(options.execution_id, options.activity, options.message)
    return _said(options, "failed")


def _said(options: Options, outcome: str) -> int:
    if options.json:
        print_json({"execution_id": options.execution_id, "activity": options.activity, "outcome": outcome})
    else:
        print(f"{outcome} activity {options.activity} of {options.execution_id}")
    return 0
