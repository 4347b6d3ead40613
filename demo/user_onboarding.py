"""Onboard users from a CSV, once somebody has approved them over HTTP: `make story NAME=user_onboarding`.

The approver takes so long that a reminder is due. Users are kept in SQLite, or in the database at USERS_DATABASE_URL.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from activities.user_onboarding import APPROVER_URL, DATABASE_URL, approve_users, import_users, remind_approver
from demo.console import SayingHandler, say
from demo.onboarding_endpoint import EXECUTION
from demo.processes import ROOT, Child, without_proxy
from demo.running import StoryError, parser, run
from durably import Client
from durably.embedded import Embedded
from orchestrators.user_onboarding import Onboarding, OnboardingRequest, onboard_users

EVENT = ROOT / "events/user_onboarding.json"
USERS = ROOT / "events/users.csv"
APPROVAL = ROOT / "events/approved_users.csv"
PATIENCE_S = 60.0


def tell(arguments: Sequence[str]) -> int:
    """Tell the story; its exit code."""
    told = parser("user_onboarding", __doc__)
    told.add_argument("--users", type=Path, default=USERS, metavar="CSV", help="name,dob,city; default: %(default)s")
    told.add_argument("--s3", action="store_true", help=f"take the users' CSV from S3, where {EVENT.name} says it lies")
    told.add_argument("--approval", type=Path, default=APPROVAL, metavar="CSV", help="id; default: %(default)s")
    told.add_argument("--early", action="store_true", help="approve before anything else: that starts the onboarding")
    told.add_argument("--never", action="store_true", help="approve nobody: the onboarding expires")
    options = told.parse_args(arguments)
    return run("onboarding", options.db, lambda db: onboard(db, options))


def onboard(db: Path, options: argparse.Namespace) -> None:
    """Run the orchestrator and the approver's endpoint, approve, print what became of the users."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[SayingHandler("runtime")])
    request = request_of(options)
    stored = Path(f"{db}-request.json")
    stored.write_text(request.model_dump_json())
    os.environ.setdefault(DATABASE_URL, f"sqlite:///{db}-users.db")
    os.environ |= without_proxy()
    with ExitStack() as stack:
        endpoint = stack.enter_context(Child("demo.onboarding_endpoint", [f"--db={db}", f"--request={stored}"]))
        os.environ[APPROVER_URL] = endpoint.url
        say("endpoint", f"is up at {endpoint.url} (pid {endpoint.pid})")
        if options.early:
            say("approver", answer_to(f"{endpoint.url}/approvals", options.approval.read_bytes()))
        runtime = stack.enter_context(
            Embedded(
                db, orchestrators=[onboard_users], activities=[import_users, approve_users, remind_approver], http=None
            )
        )
        handle = runtime.client.start(EXECUTION, onboard_users.options(id_reuse="use_existing"), request)
        if not options.never and is_reminded(runtime.client):
            say("approver", answer_to(f"{endpoint.url}/approvals", options.approval.read_bytes()))
        result: Onboarding = handle.result(timeout=PATIENCE_S)
        print(answer_to(f"{endpoint.url}/users"))
    print(result.model_dump_json())


def request_of(options: argparse.Namespace) -> OnboardingRequest:
    """The event, with the CSV of the command line in it, and seconds for its days.

    Raises:
        StoryError: the CSV cannot be read.
    """
    request = OnboardingRequest.model_validate_json(EVENT.read_bytes())
    if not options.s3:
        try:
            request.users = options.users.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StoryError(f"{options.users} cannot be read: {error}") from error
    request.remind_after = timedelta(seconds=0.5)
    request.expire_after = timedelta(seconds=1 if options.never else PATIENCE_S)
    return request


def is_reminded(client: Client) -> bool:
    """Wait until the approver is reminded; False if the execution has ended already.

    Raises:
        StoryError: that does not happen.
    """
    give_up_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_at:
        described = client.describe(EXECUTION)
        if described.closed_at is not None:
            return False
        if "reminded" in (described.custom_status or ""):
            return True
        time.sleep(0.02)
    raise StoryError(f"after {PATIENCE_S:.0f} s the approver was not yet reminded")


def answer_to(url: str, body: bytes | None = None) -> str:
    """What a GET, or a POST of `body`, is answered with.

    Raises:
        StoryError: it is refused.
    """
    try:
        with urlopen(Request(url, data=body), timeout=10) as response:
            text: str = response.read().decode()
            return text
    except HTTPError as refusal:
        with refusal:
            raise StoryError(f"{url} answered {refusal.code}: {refusal.read().decode()}") from None
