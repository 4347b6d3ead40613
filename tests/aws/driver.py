"""A deployment on moto: real SQS receives are handed to the real handlers, as Lambda's event source mappings do it.

Single-threaded, because moto is not thread-safe. Time is the driver's own; so is the choice of who dies, when.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Literal, cast

import moto.core.utils
import moto.sqs.models
import pytest
from moto import mock_aws
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.scheduler.models import scheduler_backends
from moto.sqs.models import sqs_backends

from durably import Activity, Client, Orchestrator, Registry
from durably.adapters.aws import AwsBackend, AwsSettings, Clients, keys
from durably.adapters.aws.metering import Meter
from durably.adapters.aws.secrets import SecretTokenSigner
from durably.aws import (
    Surroundings,
    activity_handler,
    api_handler,
    callbacks_handler,
    dead_letters_handler,
    orchestrator_handler,
    sweeper_handler,
    timers_handler,
)
from durably.codec.payloads import PydanticCodec
from durably.core.keys import RunKey
from durably.runtime.runtime import Limits
from tests.aws.payloads import (
    ACCOUNT,
    ACTIVITIES,
    DELAY,
    EVENTS,
    REGION,
    LambdaContext,
    ManualClock,
    SeededEntropy,
    answer_body,
    http_event,
    record_of,
)
from tests.contract.aws import PROJECTED

VISIBILITY_S = 60
MAX_RECEIVES = 20
MAPPINGS: dict[str, str] = {  # queue -> function
    EVENTS: "orchestrator",
    ACTIVITIES: "activities",
    DELAY: "timers",
    "events-dead.fifo": "dead_letters",
    "activities-dead": "dead_letters",
    "delay-dead": "dead_letters",
}
BATCH = {ACTIVITIES: 1}  # of the others: 10
Moment = Literal["before", "after"]
Hook = Callable[["Call"], None]


class Crash(KeyboardInterrupt):
    """The process ends here. An interrupt, since nothing in durably stops one."""


@dataclass(frozen=True)
class Call:
    """A boto call that a function is about to make, or has made."""

    function: str
    operation: str
    moment: Moment

    def __str__(self) -> str:
        return f"{self.moment} {self.operation}"


class _Observed:
    """Clients are expensive to make, so all deployments share them; their calls are reported to the current one."""

    current: Cloud | None = None

    @classmethod
    def observe(cls, client: Any) -> None:
        client.meta.events.register("before-call", cls._before)
        client.meta.events.register("after-call", cls._after)

    @classmethod
    def _before(cls, model: Any, **_: Any) -> None:
        if cls.current is not None:
            cls.current.called(model, "before")

    @classmethod
    def _after(cls, model: Any, **_: Any) -> None:
        if cls.current is not None:
            cls.current.called(model, "after")


METER = Meter()  # counts what handlers do
_CODEC = PydanticCodec("always")  # what it knows of annotations holds for every deployment


@cache
def _clients() -> Clients:
    return Clients(region=REGION, observers=[_Observed.observe, METER.observe])


@cache
def _outside() -> Clients:
    """Those of Lambda's pollers and of the test: nobody observes them."""
    return Clients(region=REGION)


@dataclass
class Process:
    """The execution environments of all functions; what they keep in memory dies with it."""

    handlers: dict[str, Callable[..., Any]]
    backend: AwsBackend
    settings: AwsSettings = field(default_factory=AwsSettings)


class Cloud:
    """A deployment.

    Attributes:
        hook: called at each boto call of a handler; raises `Crash`, or does something else meanwhile.
        code_version: of the orchestrators; a process that is started takes it on.
        remaining_ms: what functions are told of the time that they have left.
        calls: every boto call that a handler began, by function.
        invocations: functions in the order in which they were invoked.
    """

    def __init__(
        self,
        orchestrators: Sequence[Orchestrator[..., Any]] = (),
        activities: Sequence[Activity[..., Any]] = (),
        *,
        local: Sequence[Activity[..., Any]] = (),
        limits: Limits | None = None,
        turn_seconds: float = 5.0,
        remaining_ms: int = 10_000,
        max_receives: int = MAX_RECEIVES,
        seed: int = 1,
    ) -> None:
        self.clock = ManualClock()
        self.entropy = SeededEntropy(seed)
        self.orchestrators, self.activities, self.local = orchestrators, activities, local
        self.limits = limits
        self.turn_seconds = turn_seconds
        self.remaining_ms = remaining_ms
        self.hook: Hook | None = None
        self.code_version = "v1"
        self.calls: list[tuple[str, str]] = []
        self.invocations: list[str] = []
        self.crashes = 0
        self._function: str | None = None
        names = [name for each in activities for name in (each.name, *each.aliases)]
        self.settings = deploy(_outside(), names, max_receives=dict.fromkeys(MAPPINGS, max_receives))
        self.process = self.started()
        registry = Registry(orchestrators, [*activities, *local], codec=_CODEC)
        backend = AwsBackend(self.settings, clients=_outside(), clock=self.clock)
        self.client = Client(backend, registry, self.clock, self.entropy, pause=lambda _: self.run())
        self.backend = backend

    # --- the world ---------------------------------------------------------------------------------------------------

    @property
    def sqs(self) -> Any:
        return _outside().sqs

    @property
    def s3(self) -> Any:
        return _outside().s3

    @property
    def dynamodb(self) -> Any:
        return _outside().dynamodb

    @property
    def scheduler(self) -> Any:
        return _outside().scheduler

    def url(self, queue: str) -> str:
        events_queue = self.settings.events_queue
        return f"{events_queue.removesuffix(EVENTS)}{queue}"

    def size(self, queue: str) -> int:
        """All messages of a queue: visible, delayed, in flight."""
        return len(_messages(queue))

    def bodies(self, queue: str) -> list[dict[str, Any]]:
        """The bodies of all messages of a queue."""
        return [json.loads(message.body) for message in _messages(queue)]

    def started(self) -> Process:
        """Fresh execution environments."""
        clients, settings = _clients(), self.settings
        backend = AwsBackend(settings, clients=clients, clock=self.clock)
        surroundings = Surroundings(
            settings=settings,
            clients=clients,
            backend=backend,
            clock=self.clock,
            entropy=self.entropy,
            signer=SecretTokenSigner(settings, clients, self.clock),
            codec=_CODEC,
            code_version=self.code_version,
            sleep=self.clock.advance,
        )
        if self.limits is not None:
            surroundings = replace(surroundings, limits=self.limits)
        handlers: dict[str, Callable[..., Any]] = {
            "orchestrator": orchestrator_handler(
                *self.orchestrators, local=self.local, turn_seconds=self.turn_seconds, surroundings=surroundings
            ),
            "activities": activity_handler(*self.activities, surroundings=surroundings),
            "timers": timers_handler(surroundings=surroundings),
            "dead_letters": dead_letters_handler(surroundings=surroundings),
            "sweeper": sweeper_handler(*self.orchestrators, surroundings=surroundings),
            "api": api_handler(*self.orchestrators, surroundings=surroundings),
            "callbacks": callbacks_handler(*self.activities, surroundings=surroundings),
        }
        return Process(handlers, backend)

    def restart(self) -> None:
        """What the functions keep in memory is gone."""
        self.process = self.started()

    # --- functions ---------------------------------------------------------------------------------------------------

    def called(self, model: Any, moment: Moment) -> None:
        """A client made a call."""
        if self._function is None:
            return
        operation = f"{model.service_model.service_name}.{model.name}"
        if moment == "before":
            self.calls.append((self._function, operation))
        if self.hook is not None:
            self.hook(Call(self._function, operation, moment))

    def invoke(self, function: str, event: Any) -> Any:
        """Call a function; if it dies, its memory is gone and `Crash` is raised."""
        outer, self._function = self._function, function
        self.invocations.append(function)
        try:
            return self.process.handlers[function](event, LambdaContext(lambda: self.remaining_ms))
        except Crash:
            self.crashes += 1
            self.restart()
            raise
        finally:
            self._function = outer

    def let_others_go_on(self, seconds: int) -> None:
        """Called from a hook: the process that makes the call sleeps, while others do what there is to do."""
        asleep, hook, self.hook = self.process, self.hook, None
        self.process = self.started()
        self.clock.advance(seconds)
        for _ in range(20):
            if not self.step():
                self.clock.advance(1)
        self.process, self.hook = asleep, hook

    def receive(self, queue: str, *, limit: int = 10) -> list[dict[str, Any]]:
        """Receive from a queue, as records of a Lambda event."""
        answer = self.sqs.receive_message(
            QueueUrl=self.url(queue),
            MaxNumberOfMessages=limit,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        return [record_of(queue, message) for message in answer.get("Messages", [])]

    def deliver(self, queue: str, records: Sequence[dict[str, Any]]) -> list[str]:
        """Invoke the queue's function with records, and delete those that it dealt with.

        Returns:
            The message ids of those that it did not.
        """
        try:
            answer = self.invoke(MAPPINGS[queue], {"Records": list(records)})
        except Crash:
            return [record["messageId"] for record in records]
        failed = [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]
        for record in records:
            if record["messageId"] not in failed:
                with suppress(self.sqs.exceptions.ReceiptHandleIsInvalid):  # somebody else deleted it meanwhile
                    self.sqs.delete_message(QueueUrl=self.url(queue), ReceiptHandle=record["receiptHandle"])
        return failed

    def poll(self, queue: str) -> int:
        """One poll of one event source mapping; how many messages it moved."""
        if not _messages(queue):
            return 0
        records = self.receive(queue, limit=BATCH.get(queue, 10))
        if records:
            self.clock.ms += 1
            self.deliver(queue, records)
        return len(records)

    def step(self) -> int:
        """Fire what the scheduler holds, then poll each queue once; how many messages moved."""
        return self.fire_schedules() + sum(self.poll(queue) for queue in MAPPINGS)

    def fire_schedules(self) -> int:
        """Schedules fire up to a minute late, into their queue, and are gone."""
        fired = 0
        for name, at in self.schedules():
            if self.clock.utcnow() >= at + timedelta(seconds=59):
                target = self.scheduler.get_schedule(Name=name, GroupName="schedules")["Target"]
                queue = target["Arn"].rpartition(":")[2]
                self.sqs.send_message(QueueUrl=self.url(queue), MessageBody=target["Input"])
                self.scheduler.delete_schedule(Name=name, GroupName="schedules")
                fired += 1
        return fired

    def schedules(self) -> list[tuple[str, datetime]]:
        """Names and instants of the schedules that have not fired."""
        found: list[tuple[str, datetime]] = []
        group: Any = scheduler_backends[ACCOUNT][REGION].schedule_groups["schedules"]
        if not group.schedules:
            return found
        for summary in self.scheduler.list_schedules(GroupName="schedules")["Schedules"]:
            schedule = self.scheduler.get_schedule(Name=summary["Name"], GroupName="schedules")
            at = re.fullmatch(r"at\((.*)\)", schedule["ScheduleExpression"])
            assert at is not None
            found.append((summary["Name"], datetime.fromisoformat(at[1])))
        return found

    def run(self, *, until: Callable[[], bool] | None = None, steps: int = 3_000) -> None:
        """Poll until nothing is left anywhere, or `until` holds; time passes where nothing can be received."""
        for _ in range(steps):
            if until is not None and until():
                return
            if self.step():
                continue
            if (later := self._next_ms()) is not None:
                self.clock.ms = later
            elif until is None:
                return
            else:
                raise AssertionError(f"nothing is left to do, and {until} does not hold")
        raise AssertionError(f"not done after {steps} polls: { ({q: self.size(q) for q in MAPPINGS}) }")

    def _next_ms(self) -> int | None:
        """When a message can be received next, or a schedule fires; None if there are neither."""
        now = self.clock.ms
        messages = [message for queue in MAPPINGS for message in _messages(queue)]
        instants = [max(message.visible_at, message.delayed_until) for message in messages]
        fire = [(at.replace(tzinfo=UTC) + timedelta(seconds=59)).timestamp() * 1000 for _, at in self.schedules()]
        later = [int(instant) + 1 for instant in (*instants, *fire) if instant > now]
        return min(later) if later else now + 1_000 if messages else None

    # --- what a test asks for ----------------------------------------------------------------------------------------

    def status(self, execution_id: str) -> str:
        return self.client.describe(execution_id).status

    def result(self, execution_id: str) -> Any:
        """Run until an execution has closed; its result."""
        self.run(until=lambda: self.closed(execution_id))
        return self.client.wait(execution_id, 0)

    def run_of(self, execution_id: str) -> RunKey:
        record = self.backend.read_record(execution_id)
        assert record is not None
        return record.key

    def closed(self, *execution_ids: str) -> bool:
        """Asked of moto itself, since it is asked after each step."""
        items = dynamodb_backends[ACCOUNT][REGION].tables["table"].items
        record_key = DynamoType({"S": keys.RECORD})
        records = [items.get(DynamoType({"S": id_}), {}).get(record_key) for id_ in execution_ids]
        return all(record is not None and "closed_at" in record.attrs for record in records)

    def call_back(self, url: str, body: Any, *, content_type: str = "application/json") -> tuple[int, dict[str, Any]]:
        """POST to a callback's address; status and body of the answer."""
        return self.http("callbacks", "POST", url.removeprefix("https://api.example.com"), body, content_type)

    def http(
        self,
        function: str,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        *,
        encoded: bool = False,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """A request through API Gateway; status and body of the answer."""
        text = body if isinstance(body, str | bytes) or body is None else json.dumps(body)
        answer = self.invoke(function, http_event(method, path, text, content_type, encoded=encoded, headers=headers))
        return answer["statusCode"], answer_body(answer)


def deploy(clients: Clients, activities: Iterable[str], *, max_receives: Mapping[str, int] = {}) -> AwsSettings:
    """What the template deploys.

    Args:
        clients: to make it.
        activities: names of those that have a queue; all share one.
        max_receives: of a queue, instead of `MAX_RECEIVES`.
    """

    sqs, s3 = cast("tuple[Any, Any]", (clients.sqs, clients.s3))  # their stubs want literals

    def queue(name: str, dead: str | None = None) -> str:
        attributes = {"VisibilityTimeout": str(VISIBILITY_S), "MessageRetentionPeriod": "1209600"}
        if name.endswith(".fifo"):
            attributes["FifoQueue"] = "true"
        if dead is not None:
            target = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{dead}"
            policy = {"deadLetterTargetArn": target, "maxReceiveCount": max_receives.get(name, MAX_RECEIVES)}
            attributes["RedrivePolicy"] = json.dumps(policy)
        return str(sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"])

    for dead in ("events-dead.fifo", "activities-dead", "delay-dead"):
        queue(dead)
    clients.dynamodb.create_table(
        TableName="table",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk", "gsi_pk", "gsi_sk")
        ],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-status",
                "KeySchema": [
                    {"AttributeName": "gsi_pk", "KeyType": "HASH"},
                    {"AttributeName": "gsi_sk", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": PROJECTED},
            }
        ],
    )
    s3.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
    clients.scheduler.create_schedule_group(Name="schedules")
    secret = clients.secretsmanager.create_secret(
        Name="tokens", SecretString=json.dumps({"current": "k1", "k1": "0123456789abcdef0123456789abcdef"})
    )
    shared = queue(ACTIVITIES, "activities-dead")
    return AwsSettings(
        deployment="test",
        table="table",
        bucket="bucket",
        events_queue=queue(EVENTS, "events-dead.fifo"),
        delay_queue=queue(DELAY, "delay-dead"),
        delay_queue_arn=f"arn:aws:sqs:{REGION}:{ACCOUNT}:{DELAY}",
        delay_dead_letters_arn=f"arn:aws:sqs:{REGION}:{ACCOUNT}:delay-dead",
        schedule_group="schedules",
        schedule_role=f"arn:aws:iam::{ACCOUNT}:role/schedules",
        token_secret=secret["ARN"],
        callback_url="https://api.example.com",
        activity_queues=dict.fromkeys(activities, shared),
        parallel=1,
    )


def _messages(queue: str) -> list[Any]:
    """moto's own messages, visible or not: to know when it is worth asking for them."""
    found: list[Any] = sqs_backends[ACCOUNT][REGION].queues[queue]._messages
    return found


@contextmanager
def deployed(*args: Any, **kwargs: Any) -> Iterator[Cloud]:
    """A deployment of its own, in an empty account, at a time of its own."""
    with mock_aws(), pytest.MonkeyPatch.context() as patch:
        try:
            yield _deployed(patch, *args, **kwargs)
        finally:
            _Observed.current = None


def _deployed(patch: pytest.MonkeyPatch, *args: Any, **kwargs: Any) -> Cloud:
    cloud = Cloud(*args, **kwargs)
    patch.setattr(moto.core.utils, "utcnow", cloud.clock.utcnow)
    patch.setattr(moto.sqs.models, "unix_time", lambda: cloud.clock.ms / 1000)  # the same, asked for very often
    patch.setattr(moto.sqs.models, "unix_time_millis", lambda: float(cloud.clock.ms))
    _Observed.current = cloud
    return cloud
