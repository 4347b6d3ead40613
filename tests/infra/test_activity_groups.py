"""Template and code agree about activities, and `durably template` makes them agree."""

from __future__ import annotations

import importlib.util
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durably import Callback, activity, callback_activity
from durably.cli import main
from durably.cli.template import Group, function_file, groups_of, updated
from durably.core.errors import ConfigurationError
from durably.embedded.discovery import discover
from tests.infra.reading import DEPLOYED, FUNCTION, QUEUE, ROOT, activity_queues, allowed, parsed, resources

TEMPLATE = (ROOT / "template.yaml").read_text()
GROUPS = groups_of(discover([ROOT / path for path in DEPLOYED]).activities)

each_group = pytest.mark.parametrize("group", GROUPS, ids=[group.resource for group in GROUPS])


@activity(timeout=timedelta(seconds=45))
def bill(amount: int) -> int:
    return amount


@activity(name="send-receipt", aliases=["mail-receipt"])
def send_receipt(amount: int) -> int:
    return amount


@callback_activity(timeout=timedelta(days=3))
def sign(callback: Callback[int], amount: int) -> None: ...


def billing(*activities: Any) -> Group:
    return Group("activities.billing", activities or (bill, send_receipt))


# --- this project -------------------------------------------------------------------------------------------------


def test_groups_are_found() -> None:
    names = {group.resource: group.names for group in GROUPS}
    assert names["RoutingActivities"] == ["get_route", "transmit"]
    assert names.keys() == {
        f"{story}Activities" for story in ("Greetings", "PokemonCapture", "Routing", "UserOnboarding")
    }


@each_group
def test_a_group_has_its_function_queue_and_environment(group: Group) -> None:
    assert resources(FUNCTION)[group.resource]["Handler"] == f"{group.stem}.handler"
    assert {f"{group.resource}Queue/Queue", f"{group.resource}Queue/DeadLetters"} <= set(resources(QUEUE))
    assert activity_queues()[f"{group.resource}Queue"] == group.names
    assert resources(FUNCTION)[group.resource]["Timeout"] >= group.timeout_seconds


@each_group
def test_whoever_sends_messages_may_send_to_a_groups_queue(group: Group) -> None:
    for function in ("RoutingOrchestrator", "Timers", "DeadLetters", "Callbacks", group.resource):
        assert ("sqs:SendMessage*", f"{group.resource}Queue/Queue") in allowed(function)
    assert ("sqs:ReceiveMessage", f"{group.resource}Queue/DeadLetters") in allowed("DeadLetters")


@each_group
def test_a_groups_function_runs_its_activities(group: Group) -> None:
    file = ROOT / "infra" / "functions" / f"{group.stem}.py"
    spec = importlib.util.spec_from_file_location(f"deployed_{group.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert sorted(each.name for each in module.handler.activities) == sorted(each.name for each in group.activities)


def test_no_queue_is_for_activities_that_nobody_has() -> None:
    assert set(activity_queues()) == {f"{group.resource}Queue" for group in GROUPS}


def test_the_command_finds_nothing_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["template", "--check", *DEPLOYED]) == 0
    assert capsys.readouterr().out == ""


# --- any project --------------------------------------------------------------------------------------------------


def test_a_new_group_gets_all_that_the_others_have() -> None:
    found = parsed(updated(TEMPLATE, [billing(), *GROUPS]))["Resources"]
    routing = {id_.removeprefix("Routing") for id_ in found if id_.startswith("RoutingActivities")}
    assert {id_.removeprefix("Billing") for id_ in found if id_.startswith("BillingActivities")} == routing
    assert found["BillingActivities"]["Properties"]["Timeout"] == 55
    assert found["BillingActivitiesQueue"]["Properties"]["Parameters"]["VisibilityTimeout"] == 65


def test_names_and_aliases_lead_to_the_queue() -> None:
    assert '{"${BillingActivitiesQueue.Outputs.Url}": ["bill", "mail-receipt", "send-receipt"]' in updated(
        TEMPLATE, [billing()]
    )


def test_only_a_group_with_callbacks_may_read_the_key_of_their_tokens() -> None:
    without, with_ = updated(TEMPLATE, [billing()]), updated(TEMPLATE, [billing(bill, sign)])
    assert with_.count("secretsmanager:GetSecretValue") == without.count("secretsmanager:GetSecretValue") + 1


def test_what_was_tuned_by_hand_stays() -> None:
    tuned = TEMPLATE.replace("      Timeout: 310\n", "      Timeout: 77 # they are slow on Mondays\n")
    assert tuned != TEMPLATE
    assert "Timeout: 77 # they are slow on Mondays" in updated(tuned, [billing(), *GROUPS])


def test_an_updated_template_lacks_nothing() -> None:
    once = updated(TEMPLATE, [billing(), *GROUPS])
    assert updated(once, [billing(), *GROUPS]) == once
    assert updated(TEMPLATE, GROUPS) == TEMPLATE


def test_a_group_that_vanished_from_code_keeps_its_resources() -> None:
    once = updated(TEMPLATE, [billing(), *GROUPS])
    assert "BillingActivitiesQueue" in parsed(updated(once, GROUPS))["Resources"]


def test_a_template_without_outputs_gets_its_resources_at_the_end() -> None:
    text = TEMPLATE[: TEMPLATE.index("Outputs:")]
    assert "BillingActivities" in parsed(updated(text, [billing()]))["Resources"]


@pytest.mark.parametrize("what", ["activities", "activity queues", "dead-letter queues"])
def test_a_template_without_the_marks_is_left_alone(what: str) -> None:
    with pytest.raises(ConfigurationError, match=f"durably template: {what}"):
        updated(TEMPLATE.replace(f"# durably template: {what}\n", ""), GROUPS)


def test_a_groups_file_is_an_import_and_a_handler() -> None:
    group = groups_of([bill, send_receipt])[0]
    assert function_file(group) == (
        "from durably.aws import activity_handler\n"
        f"from {bill.fn.__module__} import bill, send_receipt\n\nhandler = activity_handler(bill, send_receipt)\n"
    )


def test_the_command_writes_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "template.yaml").write_text(TEMPLATE)
    package = tmp_path / "shop_activities"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tills.py").write_text("from durably import activity\n\n\n@activity\ndef ring() -> None: ...\n")
    asked = ["template", "shop_activities"]
    assert main([*asked, "--check"]) == 1
    assert "+  TillsActivities: # shop_activities/tills.py" in capsys.readouterr().out
    assert (tmp_path / "template.yaml").read_text() == TEMPLATE
    assert main([*asked, "--update"]) == 0
    capsys.readouterr()
    assert main([*asked, "--check"]) == 0
    assert capsys.readouterr().out == ""
    assert "import ring" in (tmp_path / "infra/functions/tills_activities.py").read_text()
    assert main([*asked, "--template", "elsewhere.yaml"]) == 1
    assert "There is no elsewhere.yaml here" in capsys.readouterr().err
