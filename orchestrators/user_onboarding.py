"""Onboarding: import users, wait for somebody to approve them, mark those who are approved."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from activities.user_onboarding import Malformed, S3Object, approve_users, import_users, remind_approver
from durably import ActivityError, Context, Signal, orchestrator


class Approval(BaseModel):
    """Who may come in."""

    ids: list[int] = Field(min_length=1)


APPROVED = Signal[Approval]("approved")


class OnboardingRequest(BaseModel):
    """The users' CSV, itself or where it lies, and how long an approval may take from the end of the import on."""

    model_config = ConfigDict(extra="forbid")

    users: str | S3Object
    remind_after: timedelta = Field(default=timedelta(days=1), gt=timedelta(0))
    expire_after: timedelta = Field(default=timedelta(days=7), gt=timedelta(0))

    @model_validator(mode="after")
    def _remind_before_the_end(self) -> Self:
        if self.remind_after > self.expire_after:
            raise ValueError("remind_after must not be longer than expire_after")
        return self


class OnboardingStatus(StrEnum):
    """How an onboarding ended."""

    APPROVED = "APPROVED"
    EXPIRED = "EXPIRED"
    NOBODY_IMPORTED = "NOBODY_IMPORTED"


class Onboarding(BaseModel):
    """What became of a CSV of users.

    Attributes:
        rejected: how many rows were not imported; `malformed` holds the first hundred of them.
        reminded: whether the approver had to be.
        unknown: ids that were approved and belong to nobody in this CSV.
    """

    status: OnboardingStatus
    imported: int
    rejected: int
    malformed: list[Malformed]
    reminded: bool = False
    approved: list[int] = Field(default_factory=list[int])
    unknown: list[int] = Field(default_factory=list[int])


@orchestrator
async def onboard_users(ctx: Context, request: OnboardingRequest) -> Onboarding:
    """Import, wait, approve. An approval may come at any time after the start, also before the import has ended."""
    batch = f"{ctx.execution_id}/{ctx.uuid4()}"  # the same when the execution is retried
    report = await import_users(batch, request.users)
    done = Onboarding(status=OnboardingStatus.NOBODY_IMPORTED, **report.model_dump())
    if not report.imported:
        return done

    asked_at = ctx.now()
    ctx.set_status("waiting for approval")
    approval = await approval_until(ctx, asked_at + request.remind_after)
    if approval is None:
        done.reminded = await remind(ctx, report.imported)
        ctx.set_status("waiting for approval, reminded")
        approval = await approval_until(ctx, asked_at + request.expire_after)

    done.status = OnboardingStatus.EXPIRED if approval is None else OnboardingStatus.APPROVED
    while approval is not None:
        marked = await approve_users(batch, approval.ids)
        done.approved = sorted({*done.approved, *marked.approved})
        done.unknown = sorted({*done.unknown, *marked.unknown})
        approval = await approval_until(ctx, ctx.now())  # another may have come meanwhile
    return done


async def approval_until(ctx: Context, end: datetime) -> Approval | None:
    """The next approval, or None if it is not there by then."""
    try:
        async with asyncio.timeout((end - ctx.now()).total_seconds()):
            return await ctx.receive(APPROVED)
    except TimeoutError:
        return None


async def remind(ctx: Context, users: int) -> bool:
    """Remind the approver, and whether that worked; an approval may come without."""
    try:
        await remind_approver(users)
    except ActivityError as error:
        ctx.logger.warning("the approver could not be reminded: %s", error.failure.message)
        return False
    return True
