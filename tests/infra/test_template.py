"""What must hold of everything that is deployed, whatever activities there are."""

from __future__ import annotations

import re
from typing import Any

import pytest

from durably.adapters.aws import keys, settings
from durably.aws.openapi import OPERATIONS
from tests.aws.driver import MAX_RECEIVES
from tests.contract.aws import PROJECTED
from tests.infra.reading import (
    FUNCTION,
    QUEUE,
    ROOT,
    SOURCE,
    allowed,
    environment,
    referred,
    resources,
    stack,
    statements,
    template,
)

TWO_WEEKS_S = 14 * 24 * 3600
OF_OTHERS = "TriggersQueue/DeadLetters"  # what came from outside is nothing that DeadLetters knows; somebody must look
RECEIVE = {
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ChangeMessageVisibility*",
}

each_function = pytest.mark.parametrize("function", resources(FUNCTION))
each_queue = pytest.mark.parametrize("queue", resources(QUEUE))
each_source = pytest.mark.parametrize("source", resources(SOURCE))


def one(value: Any) -> str:
    (id_,) = referred(value)
    return id_


def of_function(function: str, name: str) -> Any:
    """A property of a function, or what Globals say."""
    return resources(FUNCTION)[function].get(name, template()["Globals"]["Function"].get(name))


# --- functions ------------------------------------------------------------------------------------------------


@each_function
def test_a_function_is_a_file_of_its_handlers_name(function: str) -> None:
    module, handler = of_function(function, "Handler").split(".")
    assert handler == "handler"
    assert (ROOT / "infra" / "functions" / f"{module}.py").is_file()
    built_from = (
        "orchestrator" if function == "RoutingOrchestrator" else re.sub(r"(?<=.)(?=[A-Z])", "_", function).lower()
    )
    assert module == built_from  # as infra/Makefile takes it


@each_function
def test_lambda_lets_a_function_take_part_in_a_long_chain(function: str) -> None:
    assert of_function(function, "RecursiveLoop") == "Allow"


def test_every_file_of_a_function_is_deployed() -> None:
    files = {file.stem for file in (ROOT / "infra" / "functions").glob("*.py")}
    assert files == {of_function(function, "Handler").split(".")[0] for function in resources(FUNCTION)}


def test_functions_find_in_their_environment_what_they_look_for() -> None:
    there = {name for name in environment() if name.startswith("DURABLY_")}
    looked_for = set(re.findall(r'"(DURABLY_[A-Z_]+)"', (ROOT / settings.__file__).read_text()))
    assert there == looked_for
    assert environment()["PYTHONHASHSEED"] == "0"


def test_the_makefile_builds_for_what_the_template_deploys_to() -> None:
    built = dict(re.findall(r"^(\w+) \?= (\S+)$", (ROOT / "infra" / "Makefile").read_text(), re.MULTILINE))
    parameters = template()["Parameters"]
    assert built["ARCHITECTURE"] == parameters["Architecture"]["Default"] == "arm64"
    assert built["RUNTIME"] == parameters["Runtime"]["Default"]


# --- queues ---------------------------------------------------------------------------------------------------


@each_queue
def test_a_queue_keeps_messages_for_as_long_as_it_can_and_encrypts_them(queue: str) -> None:
    properties = resources(QUEUE)[queue]
    assert properties["MessageRetentionPeriod"] == TWO_WEEKS_S
    assert properties["SqsManagedSseEnabled"] is True


@each_queue
def test_a_queue_has_a_dead_letter_queue_or_is_one_that_is_consumed(queue: str) -> None:
    consumers = [
        one(each["FunctionName"]) for each in resources(SOURCE).values() if one(each["EventSourceArn"]) == queue
    ]
    redrive = resources(QUEUE)[queue].get("RedrivePolicy")
    if redrive is None:
        assert consumers == ([] if queue == OF_OTHERS else ["DeadLetters"])
    else:
        dead_letters = one(redrive["deadLetterTargetArn"])
        assert resources(QUEUE)[dead_letters].get("FifoQueue") == resources(QUEUE)[queue].get("FifoQueue")
        assert redrive["maxReceiveCount"] == MAX_RECEIVES  # a quarter of an hour of refusals
        assert consumers not in ([], ["DeadLetters"])


@each_source
def test_a_source_answers_for_each_message_and_never_reserves_concurrency(source: str) -> None:
    properties = resources(SOURCE)[source]
    assert properties["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert properties["ScalingConfig"]["MaximumConcurrency"] >= 2
    assert of_function(one(properties["FunctionName"]), "ReservedConcurrentExecutions") is None


@each_source
def test_a_message_stays_hidden_longer_than_its_function_may_take(source: str) -> None:
    properties = resources(SOURCE)[source]
    visibility = resources(QUEUE)[one(properties["EventSourceArn"])]["VisibilityTimeout"]
    assert visibility >= of_function(one(properties["FunctionName"]), "Timeout")


def test_a_turn_stays_hidden_longer_than_it_may_take_whatever_is_chosen() -> None:
    assert template()["Resources"]["EventsQueue"]["Properties"]["Parameters"]["VisibilityTimeout"] == {
        "Ref": "TurnVisibilitySeconds"
    }
    assert template()["Parameters"]["TurnVisibilitySeconds"]["MinValue"] >= of_function(
        "RoutingOrchestrator", "Timeout"
    )


def test_the_events_queue_is_a_fifo_queue_of_high_throughput() -> None:
    properties = resources(QUEUE)["EventsQueue/Queue"]
    assert properties["FifoQueue"] is True
    assert (properties["DeduplicationScope"], properties["FifoThroughputLimit"]) == (
        "messageGroup",
        "perMessageGroupId",
    )


def test_what_a_schedule_cannot_deliver_may_go_to_the_dead_letters_of_the_delay_queue() -> None:
    (policy,) = resources("AWS::IAM::Role")["Schedules/Role"]["Policies"]
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert (statement["Action"], referred(statement["Resource"])) == (
        "sqs:SendMessage*",
        {"DelayQueue/Queue", "DelayQueue/DeadLetters"},
    )
    assert environment()["DURABLY_DELAY_DEAD_LETTERS_ARN"] == {"Fn::GetAtt": "DelayQueue.Outputs.DeadLettersArn"}


# --- permissions ------------------------------------------------------------------------------------------------


@each_source
def test_a_function_may_receive_from_its_queue(source: str) -> None:
    properties = resources(SOURCE)[source]
    queue = one(properties["EventSourceArn"])
    assert {(action, queue) for action in RECEIVE} <= allowed(one(properties["FunctionName"]))


@each_function
def test_a_function_may_receive_from_no_other_queue(function: str) -> None:
    own = {one(each["EventSourceArn"]) for each in resources(SOURCE).values() if one(each["FunctionName"]) == function}
    assert {id_ for action, id_ in allowed(function) if action in RECEIVE - {"sqs:GetQueueAttributes"}} == own


def test_exactly_what_the_code_calls_is_allowed() -> None:
    """Who calls what is checked where IAM is: against the deployed stacks."""
    sources = {*(ROOT / "src/durably/adapters/aws").glob("*.py"), *(ROOT / "src/durably/aws").glob("*.py")}
    of_the_command_line = {ROOT / "src/durably/adapters/aws/stacks.py"}
    calls = {
        call
        for file in sources - of_the_command_line
        for call in re.findall(r"clients\.(\w+\.\w+)\(", file.read_text())
    }
    assert {"dynamodb.put_item", "sqs.send_message_batch", "scheduler.create_schedule"} <= calls
    needed = {iam_action(call) for call in calls}
    by_lambda_itself = {"sqs:ReceiveMessage", "sqs:DeleteMessage"}
    by_the_scheduler = {"iam:PassRole"}
    by_a_story = {"s3:GetObjectVersion"}
    assert {action for function in resources(FUNCTION) for action, _ in allowed(function)} == (
        needed | by_lambda_itself | by_the_scheduler | by_a_story
    )


def iam_action(call: str) -> str:
    named_otherwise = {"s3.list_objects_v2": "s3:ListBucket", "s3.delete_objects": "s3:DeleteObject"}
    if call in named_otherwise:
        return named_otherwise[call]
    service, method = call.split(".")
    action = "".join(word.capitalize() for word in method.removesuffix("_batch").split("_"))
    # SAM's own policy templates allow the batch forms by name, too
    return f"{service}:{action}*" if action in {"SendMessage", "ChangeMessageVisibility"} else f"{service}:{action}"


@each_function
def test_whoever_reads_from_the_bucket_is_told_what_is_not_there(function: str) -> None:
    """S3 answers 404 to those who may list the bucket, 403 to all others (AWS docs, GetObject), as if forbidden."""
    reading = [each for each in statements(function) if "s3:GetObject" in each["Action"]]
    for statement in reading:
        assert "s3:ListBucket" in statement["Action"]
        (bucket,) = referred(statement["Resource"])
        assert {"Fn::GetAtt": f"{bucket}.Arn"} in statement["Resource"]


@each_function
def test_no_permission_is_for_everything(function: str) -> None:
    assert not [action for action, _ in allowed(function) if action.endswith(":*") or action == "*"]
    for policy in resources(FUNCTION)[function]["Policies"]:
        assert "*" not in [statement["Resource"] for statement in policy.get("Statement", [])]


# --- the rest ---------------------------------------------------------------------------------------------------


def test_the_table_is_the_one_that_the_backend_uses() -> None:
    table = resources("AWS::DynamoDB::Table")["Storage/Table"]
    (index,) = table["GlobalSecondaryIndexes"]
    assert table["KeySchema"] == hash_and_range(keys.PARTITION, keys.SORT)
    assert index["KeySchema"] == hash_and_range(keys.STATUS_PARTITION, keys.STATUS_SORT)
    assert index["IndexName"] == keys.STATUS_INDEX
    assert index["Projection"] == {"ProjectionType": "INCLUDE", "NonKeyAttributes": PROJECTED}
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires", "Enabled": True}


def hash_and_range(partition: str, sort: str) -> list[dict[str, str]]:
    return [{"AttributeName": partition, "KeyType": "HASH"}, {"AttributeName": sort, "KeyType": "RANGE"}]


def test_routes_lead_to_handlers_and_only_callbacks_are_open() -> None:
    routes = resources("AWS::ApiGatewayV2::Route", "infra/routes.yaml")
    by_key = {each["RouteKey"]: (one(each["Target"]), each["AuthorizationType"]) for each in routes.values()}
    callbacks = {f"POST /callbacks/{{token}}{action}" for action in ("", "/failure", "/heartbeat")}
    assert {key for key, (_, authorization) in by_key.items() if authorization == "NONE"} == callbacks
    for key, (integration, authorization) in by_key.items():
        expected = ("CallbacksIntegration", "NONE") if key in callbacks else ("ApiIntegration", "AWS_IAM")
        assert (integration, authorization) == expected
    source = "".join((ROOT / f"src/durably/aws/{name}.py").read_text() for name in ("api", "callbacks", "completions"))
    found = re.findall(r'app\.(get|post|put|delete)\("([^"]+)"\)', source)
    served = {f"{method.upper()} {path}".replace("<", "{").replace(">", "}") for method, path in found}
    assert served == set(by_key)
    assert set(OPERATIONS) == served - callbacks


def test_the_alarm_counts_what_the_runtime_says() -> None:
    (metric,) = resources("AWS::Logs::MetricFilter", "infra/watch.yaml").values()
    said = '"execution %s is stalled: %s"'
    assert said in (ROOT / "src/durably/runtime/turn.py").read_text()
    assert metric["FilterPattern"].strip('"') in said


@each_function
def test_a_function_has_alarms(function: str) -> None:
    assert function in watched("FunctionName")


@each_queue
def test_a_queue_has_alarms(queue: str) -> None:
    assert queue in watched("QueueName")


def watched(dimension: str) -> set[str]:
    """What alarms look at."""
    alarms = resources("AWS::CloudWatch::Alarm").values()
    dimensions = [each for alarm in alarms for each in alarm.get("Dimensions", [])]
    return {one(each["Value"]) for each in dimensions if each["Name"] == dimension}


def test_only_bodies_of_messages_expire_and_not_before_their_queues_forget_them() -> None:
    rules = resources("AWS::S3::Bucket")["Storage/Bucket"]["LifecycleConfiguration"]["Rules"]
    (rule,) = (each for each in rules if {"ExpirationInDays", "ExpirationDate", "Transitions"} & each.keys())
    assert rule["Prefix"] == keys.MESSAGES_PREFIX
    assert rule["ExpirationInDays"] * 24 * 3600 >= 4 * TWO_WEEKS_S  # dead letters come back, for as long again


def test_data_outlives_the_stack() -> None:
    kept = {id_: each for id_, each in stack().items() if each["Type"] in ("AWS::DynamoDB::Table", "AWS::S3::Bucket")}
    assert kept.keys() == {"Storage/Table", "Storage/Bucket", "UsersArrivedBucket/Bucket"}
    for each in kept.values():
        assert (each["DeletionPolicy"], each["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
