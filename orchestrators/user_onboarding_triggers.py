"""What begins and approves an onboarding on AWS: a CSV that arrives in S3, and the approver's request."""

from __future__ import annotations

import os
from urllib.parse import quote

from activities.user_onboarding import CsvError, S3Object, read_ids
from durably import PayloadError, on
from orchestrators.user_onboarding import APPROVED, Approval, OnboardingRequest, onboard_users

USERS_BUCKET = "USERS_BUCKET"
PREFIX, SUFFIX = "users/", ".csv"


@on.s3(prefix=PREFIX, suffix=SUFFIX)
def users_arrived(file: on.S3Object) -> on.Outcome:
    """Onboard users/<name>.csv, once: what is put there again is not read again, other users need another name."""
    name = file.key.removeprefix(PREFIX).removesuffix(SUFFIX)
    users = S3Object(bucket=file.bucket, key=file.key, version=file.version_id)
    flow = onboard_users.options(execution_id=onboarding(name), id_reuse="use_existing")
    return on.start(flow, OnboardingRequest(users=users))


@on.http("POST /onboardings/{name}/approvals")
def approve(request: on.HttpRequest) -> on.Outcome:
    """Approve a CSV of ids. Where S3 has not told of the users' CSV yet, this begins the onboarding."""
    name, bucket = request.parameters["name"], os.environ.get(USERS_BUCKET)
    if not bucket:
        raise LookupError(f"The environment variable {USERS_BUCKET} must name the users' bucket, and is not set.")
    try:
        approval = Approval(ids=read_ids(request.body))
    except CsvError as error:
        raise PayloadError(str(error)) from error
    wanted = OnboardingRequest(users=S3Object(bucket=bucket, key=f"{PREFIX}{name}{SUFFIX}"))
    return on.signal_with_start(onboarding(name), APPROVED, approval, onboard_users, wanted)


def onboarding(name: str) -> str:
    """The id of the execution; what an id cannot hold is written in hexadecimal."""
    return f"user-onboarding:{quote(name, safe='').replace('%', '=').replace('~', '=7E')}"
