"""Paths of the onboarding story."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from activities.user_onboarding import (
    ApprovalReport,
    ImportReport,
    Malformed,
    approve_users,
    import_users,
    remind_approver,
)
from durably.testing import Environment
from orchestrators.user_onboarding import APPROVED, Approval, OnboardingRequest, onboard_users

ORCHESTRATORS = (onboard_users,)
EVENT = Path(__file__).parents[2] / "events/user_onboarding.json"
REQUEST = OnboardingRequest.model_validate_json(EVENT.read_bytes())
IMPORTED = ImportReport(imported=3, rejected=1, malformed=[Malformed(line=4, problem="2 cells instead of 3")])


def approved(env: Environment) -> None:
    """Approved twice before anybody had to be reminded, the second time while the first was carried out."""
    env.mock(import_users).side_effect([ConnectionError("the database is busy"), IMPORTED])
    marked = [ApprovalReport(approved=[1, 2], unknown=[]), ApprovalReport(approved=[3], unknown=[9])]
    env.mock(approve_users).side_effect(marked).takes(timedelta(seconds=30))
    handle = env.start("onboarding-approved", onboard_users, REQUEST)
    env.after(timedelta(hours=3), lambda: env.signal(handle, APPROVED, Approval(ids=[1, 2])))
    env.after(timedelta(hours=3, seconds=10), lambda: env.signal(handle, APPROVED, Approval(ids=[3, 9])))
    handle.result()


def early(env: Environment) -> None:
    """Approved before the import began."""
    env.mock(import_users).returns(IMPORTED)
    env.mock(approve_users).returns(ApprovalReport(approved=[1], unknown=[]))
    env.signal_with_start("onboarding-early", APPROVED, Approval(ids=[1]), onboard_users, REQUEST).result()


def reminded(env: Environment) -> None:
    """Approved after a reminder."""
    env.mock(import_users).returns(IMPORTED)
    env.mock(remind_approver)
    env.mock(approve_users).returns(ApprovalReport(approved=[1], unknown=[]))
    handle = env.start("onboarding-reminded", onboard_users, REQUEST)
    env.after(timedelta(days=2), lambda: env.signal(handle, APPROVED, Approval(ids=[1])))
    handle.result()


def expired(env: Environment) -> None:
    """Nobody could be reminded, and nobody approved."""
    env.mock(import_users).returns(IMPORTED)
    env.mock(remind_approver).raises(ConnectionError("down"))
    env.start("onboarding-expired", onboard_users, REQUEST).result()


def nobody(env: Environment) -> None:
    """Nobody was imported."""
    env.mock(import_users).returns(ImportReport(imported=0, rejected=0, malformed=[]))
    env.start("onboarding-nobody", onboard_users, REQUEST).result()


def waiting(env: Environment) -> None:
    """Reminded, and still waiting."""
    env.mock(import_users).returns(IMPORTED)
    env.mock(remind_approver)
    env.start("onboarding-waiting", onboard_users, REQUEST)
    env.advance(timedelta(days=1, hours=1))


PATHS = (approved, early, reminded, expired, nobody, waiting)
