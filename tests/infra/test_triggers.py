"""Template and code agree about triggers, and `durably template` makes them agree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from durably import Context, on, orchestrator
from durably.cli import main
from durably.cli.function_files import handing
from durably.cli.template_triggers import Source, file_with, sources_with, triggers_of, with_triggers
from durably.cli.yaml_text import added, listed
from durably.core.errors import ConfigurationError
from durably.embedded.discovery import Definitions, discover
from tests.infra.reading import DEPLOYED, FUNCTION, ROOT, allowed, parsed, referred, resources, stack, template

TEMPLATE = (ROOT / "template.yaml").read_text()
SOURCES = (ROOT / "infra/triggers.yaml").read_text()
FOUND = discover([ROOT / path for path in DEPLOYED])


@on.s3(bucket="uploads", prefix="in*voices/", event="Object Deleted")
def invoice_gone(file: on.S3Object) -> on.Outcome: ...


@on.eventbridge(source="shop.*", detail_type="OrderPlaced")
@on.eventbridge()
@orchestrator
async def ship(ctx: Context, event: on.EventBridgeEvent) -> None: ...


@on.sns(topic="orders")
def confirm(message: on.SnsMessage) -> on.Outcome: ...


@on.sqs(queue="inbox.fifo")
def take_order(message: on.SqsMessage) -> on.Outcome: ...


@on.http("POST /approvals/{batch}/of/{who}")
def allow(request: on.HttpRequest) -> on.Outcome: ...


@on.schedule(rule="night*")
def clean_up(tick: on.Tick) -> on.Outcome: ...


ALL = triggers_of(
    Definitions(
        orchestrators=(ship,),
        activities=(),
        triggers=(invoice_gone, *ship.triggers, confirm, take_order, allow, clean_up),
    )
)


def made(*triggers: on.Trigger[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two templates with these triggers."""
    found = triggers_of(Definitions(orchestrators=(), activities=(), triggers=triggers))
    return parsed(with_triggers(TEMPLATE, found)), parsed(sources_with(SOURCES, found))


def pattern(trigger: on.Trigger[Any]) -> dict[str, Any]:
    (name,) = (each.name for each in triggers_of(Definitions(orchestrators=(), activities=(), triggers=(trigger,))))
    found: dict[str, Any] = made(trigger)[1]["Resources"][f"{name}Rule"]["Properties"]["EventPattern"]
    return found


# --- this project -------------------------------------------------------------------------------------------------


def test_a_csv_of_users_reaches_the_function_through_the_triggers_queue() -> None:
    (rule,) = resources("AWS::Events::Rule").values()
    assert rule["EventPattern"] == {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {
            "bucket": {"name": [{"Ref": "UsersArrivedBucket/Bucket"}]},
            "object": {"key": [{"wildcard": "users/*.csv"}]},
        },
    }
    assert [referred(target["Arn"]) for target in rule["Targets"]] == [{"TriggersQueue/Queue"}]
    assert stack()["UsersArrivedBucket/Bucket"]["Properties"]["NotificationConfiguration"] == {
        "EventBridgeConfiguration": {"EventBridgeEnabled": True}
    }
    variables = resources(FUNCTION)["Triggers"]["Environment"]["Variables"]
    assert variables == {"USERS_BUCKET": {"Ref": "UsersArrivedBucket/Bucket"}}


def test_nobody_but_the_rule_may_put_messages_into_the_triggers_queue() -> None:
    (policy,) = resources("AWS::SQS::QueuePolicy").values()
    (statement,) = policy["PolicyDocument"]["Statement"]
    senders = referred(statement["Condition"]["ArnEquals"]["aws:SourceArn"])
    assert senders == {"TriggersQueue/Queue", "TriggersSources/UsersArrivedRule"}
    assert referred(statement["Resource"]) == {"TriggersQueue/Queue"}


def test_the_approvers_request_is_signed_and_may_invoke_the_function() -> None:
    route = resources("AWS::ApiGatewayV2::Route")["TriggersSources/ApproveRoute"]
    assert (route["RouteKey"], route["AuthorizationType"]) == ("POST /onboardings/{name}/approvals", "AWS_IAM")
    permission = resources("AWS::Lambda::Permission")["TriggersSources/ApprovePermission"]
    assert permission["SourceArn"]["Fn::Sub"].endswith("${HttpApi}/*/POST/onboardings/*/approvals")
    assert referred(permission["FunctionName"]) == {"Triggers"}


def test_the_function_may_start_and_signal_and_take_back_what_it_started_in_vain() -> None:
    assert {("dynamodb:PutItem", "Storage/Table"), ("sqs:SendMessage*", "EventsQueue/Queue")} <= allowed("Triggers")
    assert allowed("Triggers") >= {("dynamodb:DeleteItem", "Storage/Table"), ("s3:DeleteObject", "Storage/Bucket")}
    assert not [action for action, id_ in allowed("Triggers") if id_.startswith("UsersArrivedBucket")]


def test_what_is_deployed_lacks_nothing() -> None:
    triggers = triggers_of(FOUND)
    assert [each.name for each in triggers] == ["UsersArrived", "Approve"]
    assert with_triggers(TEMPLATE, triggers) == TEMPLATE
    assert sources_with(SOURCES, triggers) == SOURCES
    file = (ROOT / "infra/functions/triggers.py").read_text()
    assert file_with(file, triggers, FOUND.orchestrators) == file == file_with("", triggers, FOUND.orchestrators)


# --- any project --------------------------------------------------------------------------------------------------


def test_every_kind_of_trigger_gets_its_source_and_then_lacks_nothing() -> None:
    main_, sources = with_triggers(TEMPLATE, ALL), sources_with("", ALL)
    assert (with_triggers(main_, ALL), sources_with(sources, ALL)) == (main_, sources)
    assert {id_: each["Type"] for id_, each in parsed(sources)["Resources"].items()} == {
        "Delivery": "AWS::SQS::QueuePolicy",
        "InvoiceGoneRule": "AWS::Events::Rule",
        "ShipRule": "AWS::Events::Rule",
        "Ship2Rule": "AWS::Events::Rule",
        "ConfirmSubscription": "AWS::SNS::Subscription",
        "Integration": "AWS::ApiGatewayV2::Integration",
        "AllowRoute": "AWS::ApiGatewayV2::Route",
        "AllowPermission": "AWS::Lambda::Permission",
        "ScheduleGroup": "AWS::Scheduler::ScheduleGroup",
        "ScheduleRole": "AWS::IAM::Role",
        "CleanUpSchedule": "AWS::Scheduler::Schedule",
    }
    before, after = template()["Resources"], parsed(main_)["Resources"]
    assert after.keys() - before.keys() == {"InvoiceGoneBucket", "TakeOrderQueue", "TakeOrderConsumer"}


def test_what_a_template_passes_its_sources_declare_and_the_reverse() -> None:
    passed = parsed(with_triggers(TEMPLATE, ALL))["Resources"]["TriggersSources"]["Properties"]["Parameters"]
    assert passed.keys() == parsed(sources_with(SOURCES, [*triggers_of(FOUND), *ALL]))["Parameters"].keys()


def test_what_code_leaves_open_is_a_parameter() -> None:
    before, after = template()["Parameters"], parsed(with_triggers(TEMPLATE, ALL))["Parameters"]
    defaults = {name: after[name].get("Default") for name in after.keys() - before.keys()}
    assert defaults == {
        "InvoiceGoneBucketName": "uploads",
        "ShipBus": "default",
        "Ship2Bus": "default",
        "ConfirmTopic": None,
        "CleanUpExpression": None,
    }


def test_all_senders_are_known_to_the_queue() -> None:
    policy = parsed(sources_with("", ALL))["Resources"]["Delivery"]["Properties"]["PolicyDocument"]
    senders = policy["Statement"][0]["Condition"]["ArnEquals"]["aws:SourceArn"]
    assert referred(senders) == {"Queue", "InvoiceGoneRule", "ShipRule", "Ship2Rule", "ConfirmTopic"}


def test_a_queue_of_ones_own_answers_for_each_message_and_has_dead_letters() -> None:
    found = made(take_order)[0]["Resources"]
    assert found["TakeOrderQueue"]["Properties"]["Parameters"] == {
        "VisibilityTimeout": 60,
        "Name": "inbox.fifo",
        "Fifo": "true",
    }
    parameters = found["TakeOrderConsumer"]["Properties"]["Parameters"]
    assert (parameters["Function"], parameters["Queue"]) == (
        {"Ref": "Triggers"},
        {"Fn::GetAtt": "TakeOrderQueue.Outputs.Arn"},
    )
    assert {"Fn::GetAtt": "TakeOrderQueue.Outputs.Consume"} in found["Triggers"]["Properties"]["Policies"]


def test_rules_let_through_what_code_wants() -> None:
    deleted = pattern(invoice_gone)
    assert (deleted["detail-type"], deleted["detail"]["object"]) == (
        ["Object Deleted"],
        {"key": [{"wildcard": "in\\*voices/*"}]},
    )
    assert "object" not in pattern(on.s3()(invoice_gone.decide))["detail"]
    assert pattern(on.s3(suffix=".csv", event="*")(invoice_gone.decide)) | {"detail": None} == {
        "source": ["aws.s3"],
        "detail-type": [{"prefix": "Object "}],
        "detail": None,
    }
    assert pattern(ship.triggers[0]) == {"source": [{"prefix": ""}]}
    assert pattern(ship.triggers[1]) == {"source": [{"wildcard": "shop.*"}], "detail-type": ["OrderPlaced"]}


@pytest.mark.parametrize(("bucket", "default"), [("*", ""), ("uploads", "uploads"), ("uploads-*", None)])
def test_a_bucket_is_made_only_where_any_will_do(bucket: str, default: str | None) -> None:
    found = made(on.s3(bucket=bucket)(invoice_gone.decide))[0]["Parameters"]["InvoiceGoneBucketName"]
    assert found.get("Default") == default


def test_a_schedule_has_a_name_that_its_trigger_takes() -> None:
    schedule = made(clean_up)[1]["Resources"]["CleanUpSchedule"]["Properties"]
    assert schedule["Name"] == "night"
    assert clean_up.wanted == {"rule": "night*"}
    anything = made(on.schedule()(clean_up.decide))[1]["Resources"]["CleanUpSchedule"]["Properties"]
    assert anything["Name"] == "clean_up"


def test_a_route_may_invoke_the_function_with_any_parameters() -> None:
    permission = made(allow)[1]["Resources"]["AllowPermission"]["Properties"]
    assert permission["SourceArn"]["Fn::Sub"].endswith(":${HttpApi}/*/POST/approvals/*/of/*")


def test_a_trigger_that_vanished_from_code_keeps_what_it_has() -> None:
    main_, sources = with_triggers(TEMPLATE, ALL), sources_with(SOURCES, ALL)
    remaining = triggers_of(FOUND)
    assert (with_triggers(main_, remaining), sources_with(sources, remaining)) == (main_, sources)


def test_what_was_tuned_by_hand_stays() -> None:
    open_ = SOURCES.replace("AuthorizationType: AWS_IAM", "AuthorizationType: NONE # the approver has no account")
    assert open_ != SOURCES
    assert "NONE # the approver has no account" in sources_with(open_, [*triggers_of(FOUND), *ALL])
    passed = TEMPLATE.replace("UsersArrivedBucket: !GetAtt UsersArrivedBucket.Outputs.Name", "UsersArrivedBucket: mine")
    assert passed != TEMPLATE
    assert with_triggers(passed, triggers_of(FOUND)) == passed


def test_a_notification_that_eventbridge_names_otherwise_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"EventBridge, through which .* 'ObjectRemoved:"):
        made(on.s3(event="ObjectRemoved:*")(invoice_gone.decide))


def test_names_that_are_taken_are_refused() -> None:
    def events(message: on.SqsMessage) -> on.Outcome: ...

    with pytest.raises(ConfigurationError, match="cannot be called events"):
        made(on.sqs()(events))
    other = Source("Allow", "elsewhere", "allow", on.HttpRequest, {})
    assert other.name == ALL[5].name
    allow_again = on.http("GET /")(lambda request: None)
    allow_again.decide.__name__, allow_again.decide.__module__ = "allow", "elsewhere"
    with pytest.raises(ConfigurationError, match="Two triggers are called allow"):
        made(allow, allow_again)


# --- files --------------------------------------------------------------------------------------------------------


def test_a_new_file_starts_what_its_triggers_know() -> None:
    assert file_with("", ALL[3:4], [ship]) == (
        f"from durably.aws import trigger_handler\nfrom {__name__} import confirm, ship\n\n"
        "handler = trigger_handler(confirm, starts=[ship])\n"
    )


def test_a_file_that_lacks_something_gets_it_and_keeps_the_rest() -> None:
    text = "from a import one\nfrom c import maker\n\nhandler = maker(one, starts=[x])  # mine\n"
    assert handing(text, "maker", [("a", "one"), ("b", "two")]) == (
        "from b import two\nfrom a import one\nfrom c import maker\n\nhandler = maker(two, one, starts=[x])  # mine\n"
    )
    assert handing(text, "maker", [("a", "one")], [("d", "x"), ("d", "y")]) == (
        "from d import y\nfrom a import one\nfrom c import maker\n\nhandler = maker(one, starts=[y, x])  # mine\n"
    )
    without = text.replace(", starts=[x]", "")
    assert handing(without, "maker", [("a", "one")], [("d", "x")]).endswith("maker(one, starts=[x])  # mine\n")
    assert handing(text, "maker", [("a", "one")], [("d", "x")]) == text


def test_blocks_are_added_to_their_section_only() -> None:
    text = "Parameters:\n  A: {}\n# about resources\nResources:\n  B: {}\n"
    assert added(text, "Parameters", {"A": "  A: 1\n", "B": "  B: 2\n"}) == (
        "Parameters:\n  A: {}\n  B: 2\n# about resources\nResources:\n  B: {}\n"
    )
    assert added(text, "Resources", {"C": "  C: {}\n"}).endswith("  B: {}\n\n  C: {}\n")
    with pytest.raises(ConfigurationError, match="hold the line `Outputs:`"):
        added(text, "Outputs", {})
    with pytest.raises(ConfigurationError, match="durably template: senders"):
        listed(text, "senders", [])


def test_the_command_writes_what_triggers_lack(tmp_path: Path) -> None:
    (tmp_path / "template.yaml").write_text(TEMPLATE)
    (tmp_path / "orchestrators").mkdir()
    (tmp_path / "orchestrators/mail.py").write_text(
        "from durably import on\n\n\n@on.sns(topic='mail')\ndef read(message: on.SnsMessage) -> on.Outcome: ...\n"
    )

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "durably.cli", "template", *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    asked = run("--check")
    assert (asked.returncode, "+  ReadSubscription: # read in orchestrators/mail.py" in asked.stdout) == (1, True)
    assert run("--update").returncode == 0
    assert run("--check").returncode == 0
    assert "trigger_handler(read)" in (tmp_path / "infra/functions/triggers.py").read_text()


def test_the_command_misses_an_activity_that_its_file_does_not_hand_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "routing_activities.py").write_text("from durably.aws import activity_handler\n")
    assert main(["template", "--check", "activities/routing.py", "--functions", str(tmp_path)]) == 1
    assert "+from activities.routing import get_route, transmit" in capsys.readouterr().out
