"""The function behind triggers: payloads of S3, EventBridge, SNS, SQS and HTTP become starts and signals.

Everything gets its id from what the payload says, never from how it came, so that a redelivery does nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import unquote_plus

from aws_lambda_powertools.utilities.data_classes import (
    APIGatewayProxyEventV2,
    EventBridgeEvent,
    S3Event,
    SNSEvent,
    SQSEvent,
)
from aws_lambda_powertools.utilities.data_classes.sns_event import SNSMessage
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from durably import on
from durably.api.orchestrator import Orchestrator
from durably.aws.surroundings import Surroundings, prepare_in_lambda
from durably.client import Client
from durably.core.errors import (
    ClientError,
    DefinitionError,
    ExecutionClosedError,
    ExecutionExistsError,
    ExecutionNotFoundError,
    PayloadError,
)

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

_logger = logging.getLogger("durably.trigger_handler")

Arrived: TypeAlias = on.S3Object | on.EventBridgeEvent | on.SnsMessage | on.SqsMessage | on.HttpRequest | on.Tick
_STATUS: dict[type[Exception], int] = {
    ExecutionNotFoundError: 404,
    ExecutionExistsError: 409,
    ExecutionClosedError: 410,
    PayloadError: 400,
    ClientError: 400,
}


def trigger_handler(
    *triggers: Orchestrator[..., Any] | on.Trigger[Any],
    starts: Sequence[Orchestrator[..., Any]] = (),
    surroundings: Surroundings | None = None,
) -> TriggerHandler:
    """The handler of a function that triggers invoke.

    Args:
        triggers: orchestrators that have triggers, and functions made triggers by `durably.on`.
        starts: further orchestrators that those functions start.
        surroundings: instead of those that the environment describes.

    Raises:
        DefinitionError: one of them is no trigger.
    """
    return TriggerHandler(triggers, starts, surroundings)


class TriggerHandler:
    """Carries out what the triggers say.

    Answers SQS with the messages that are to come back; HTTP with 202 and the execution's id, 204 (nothing to do), 400,
    404, 409 or 410. For everything else it raises what went wrong, and Lambda tries again.
    """

    def __init__(
        self,
        triggers: Sequence[Orchestrator[..., Any] | on.Trigger[Any]],
        starts: Sequence[Orchestrator[..., Any]],
        surroundings: Surroundings | None,
    ) -> None:
        self.triggers: list[on.Trigger[Any]] = []
        for each in triggers:
            self.triggers.extend(_triggers_of(each))
        known = [flow for trigger in self.triggers for flow in trigger.orchestrators]
        self.orchestrators = tuple({id(flow.fn): flow for flow in (*known, *starts)}.values())
        self._given = surroundings
        prepare_in_lambda(lambda: self._client)

    def __call__(self, event: Mapping[str, Any], context: LambdaContext) -> Any:
        """Handle an invocation."""
        records = cast("list[dict[str, Any]]", event.get("Records") or [])
        if records and records[0].get("eventSource") == "aws:sqs":
            return self._handle_batch(event, context)
        if "http" in event.get("requestContext", {}):
            return self._answer(event)
        taken = [self._take(arrived)[0] for arrived in _arrived(event)]
        if not any(taken):
            _logger.info("no trigger takes %s", event)
        return None

    @cached_property
    def _client(self) -> Client:
        of = self._given or Surroundings.from_environment()
        return Client(of.backend, of.registry(self.orchestrators), of.clock, of.entropy)

    # --- carrying out ----------------------------------------------------------------------------------------------

    def _take(self, arrived: Arrived) -> tuple[bool, list[str]]:
        """Whether a trigger took it, and the executions that it came to."""
        outcomes: list[on.Outcome] = []
        for trigger in self.triggers:
            found = trigger.take(arrived) if isinstance(arrived, trigger.kind) else None
            if found is not None:
                outcomes.append(trigger.decide(found))
        executions: list[str] = []
        for number, outcome in enumerate(outcomes):
            if outcome not in outcomes[:number]:
                executions += self._carry_out(outcome, _digest(arrived, _namesakes(outcomes[:number], outcome)))
        return bool(outcomes), executions

    def _carry_out(self, outcome: on.Outcome, digest: str) -> Iterator[str]:
        match outcome:
            case on.Start(orchestrator=flow):
                yield self._start(outcome, f"{flow.name}/{digest}")
            case on.Send(execution_id=id_, signal=signal, payload=payload, start=begun):
                request_id = f"{signal.name}/{digest}"
                if begun is None:
                    self._client.signal(id_, signal, payload, request_id=request_id)
                else:
                    flow = begun.orchestrator.options(request_id=request_id)
                    self._client.signal_with_start(id_, signal, payload, flow, *begun.args, **begun.kwargs)
                yield id_
            case None:
                pass

    def _start(self, outcome: on.Start, id_: str) -> str:
        flow = outcome.orchestrator.options(request_id=id_)
        execution_id = flow.start_options.execution_id or id_
        self._client.start(execution_id, flow, *outcome.args, **outcome.kwargs)
        return execution_id

    # --- answering -------------------------------------------------------------------------------------------------

    def _handle_batch(self, event: Mapping[str, Any], context: LambdaContext) -> Any:
        from aws_lambda_powertools.utilities.batch import (
            BatchProcessor,
            EventType,
            SqsFifoPartialProcessor,
            process_partial_response,  # pyright: ignore[reportUnknownVariableType]  # its handlers are untyped
        )

        def handle(record: SQSRecord) -> None:
            carried = [self._take(arrived)[0] for arrived in _inside(record.body)]
            if not any(carried) and not self._take(_queued(record))[0]:
                _logger.info("no trigger takes %s", record.body)

        first = next(SQSEvent(dict(event)).records)
        processor = (
            SqsFifoPartialProcessor()
            if first.event_source_arn.endswith(".fifo")
            else BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False, logger=_logger)
        )
        return process_partial_response(dict(event), handle, processor, context)

    def _answer(self, event: Mapping[str, Any]) -> dict[str, Any]:
        try:
            request = _request(event)
            taken, executions = self._take(request)
        except (ClientError, PayloadError) as error:
            status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 400)
            return _response(status, {"message": str(error)})
        if not taken:
            return _response(404, {"message": f"There is no route {request.method} {request.path}."})
        if not executions:
            return {"statusCode": 204}
        return _response(202, {"execution_id": executions[0]})


def _triggers_of(given: object) -> list[on.Trigger[Any]]:
    if isinstance(given, on.Trigger):
        return [given]
    found: list[on.Trigger[Any]] = getattr(given, "triggers", [])
    if not found:
        raise DefinitionError(f"{given!r} has no trigger. Put one of durably.on above it, such as @on.s3().")
    return found


def _response(status: int, value: Any) -> dict[str, Any]:
    return {"statusCode": status, "headers": {"Content-Type": "application/json"}, "body": json.dumps(value)}


# --- what arrived ----------------------------------------------------------------------------------------------------


def _arrived(event: Mapping[str, Any]) -> Iterator[Arrived]:
    """What a payload that is neither SQS's nor HTTP's brings, unwrapped."""
    records = cast("list[dict[str, Any]]", event.get("Records") or [])
    if records and records[0].get("eventSource") == "aws:s3":
        for record in S3Event(dict(event)).records:
            found = record.s3.get_object
            yield on.S3Object(
                bucket=record.s3.bucket.name,
                key=unquote_plus(found.key),
                event=record.event_name,
                sequencer=found.get("sequencer") or record["eventTime"],
                version_id=found.get("versionId"),
                etag=found.get("eTag"),
                size=found.get("size"),
            )
    elif records and records[0].get("EventSource") == "aws:sns":
        for message in SNSEvent(dict(event)).records:
            yield from _published(message.sns)
    elif "detail-type" in event:
        yield from _bus_event(EventBridgeEvent(dict(event)))
    elif event.get("Event") != "s3:TestEvent":
        raise PayloadError(f"This payload comes from no source that a trigger knows; its keys: {', '.join(event)}.")


def _inside(text: str) -> Iterator[Arrived]:
    """What a message carries that began elsewhere: a notification of S3, of a topic, an event of a bus."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    match value:
        case {"Type": "Notification", "TopicArn": str(), "MessageId": str(), "Message": str()}:
            yield from _published(SNSMessage(value))
        case {"detail-type": str(), "source": str(), "id": str(), "time": str(), "resources": list()}:
            yield from _arrived(value)
        case {"Records": [{"eventSource": "aws:s3", "s3": dict()}, *_]}:
            yield from _arrived(value)
        case _:
            pass


def _published(message: SNSMessage) -> Iterator[Arrived]:
    attributes = cast("dict[str, dict[str, str]]", message.get("MessageAttributes") or {})
    yield from _inside(message.message)
    yield on.SnsMessage(
        id=message.message_id,
        topic=message.topic_arn.rpartition(":")[2],
        message=message.message,
        subject=message.get("Subject"),
        attributes={name: value["Value"] for name, value in attributes.items()},
    )


def _bus_event(event: EventBridgeEvent) -> Iterator[Arrived]:
    at = datetime.fromisoformat(event.time)
    if event.source in ("aws.events", "aws.scheduler") and event.detail_type == "Scheduled Event":
        arn = event.resources[0]
        yield on.Tick(rule=arn.rpartition("/")[2], at=at, arn=arn)
        return
    if event.source == "aws.s3" and "object" in event.detail:
        found = event.detail["object"]  # unlike in a notification, its key is not encoded here
        yield on.S3Object(
            bucket=event.detail["bucket"]["name"],
            key=found["key"],
            event=event.detail_type,
            sequencer=found.get("sequencer") or event.time,
            version_id=found.get("version-id"),
            etag=found.get("etag"),
            size=found.get("size"),
        )
    yield on.EventBridgeEvent(
        id=event.get_id,
        source=event.source,
        detail_type=event.detail_type,
        at=at,
        detail=event.detail,
        resources=event.resources,
        account=event.account,
        region=event.region,
    )


def _queued(record: SQSRecord) -> on.SqsMessage:
    attributes = {name: value.get("stringValue") for name, value in record["messageAttributes"].items()}
    return on.SqsMessage(
        id=record.message_id,
        queue=record.event_source_arn.rpartition(":")[2],
        body=record.body,
        attributes={name: value for name, value in attributes.items() if value is not None},
        deduplication_id=record.attributes.message_deduplication_id,
    )


def _request(raw: Mapping[str, Any]) -> on.HttpRequest:
    from durably.aws.requests import body_of, routed  # only this source needs it

    event = APIGatewayProxyEventV2(routed(raw))
    headers = {name.lower(): value for name, value in event.headers.items()}
    context = event.request_context
    try:
        body = body_of(event).decode(errors="backslashreplace")
    except ValueError as error:
        raise PayloadError(f"The body cannot be decoded: {error}.") from error
    return on.HttpRequest(
        id=headers.get("idempotency-key") or context.request_id,
        method=context.http.method,
        path=re.sub(f"^/{re.escape(context.stage)}(?=/|$)", "", event.raw_path),
        headers=headers,
        query=event.query_string_parameters or {},
        parameters=event.path_parameters or {},
        body=body,
    )


def _namesakes(outcomes: Sequence[on.Outcome], outcome: on.Outcome) -> int:
    """How many of the outcomes would get the same name as this one: other triggers want something else there."""
    match outcome:
        case on.Start(orchestrator=flow):
            return sum(isinstance(each, on.Start) and each.orchestrator.name == flow.name for each in outcomes)
        case on.Send(execution_id=id_, signal=signal):
            same = (id_, signal.name)
            return sum(isinstance(each, on.Send) and (each.execution_id, each.signal.name) == same for each in outcomes)
        case None:
            return 0


def _digest(arrived: Arrived, number: int) -> str:
    """The same for each delivery of the same thing, whatever way it came."""
    facts = [type(arrived).__name__, *_facts(arrived), *([str(number)] if number else ())]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _facts(arrived: Arrived) -> list[str | None]:
    match arrived:
        case on.S3Object():
            return [arrived.bucket, arrived.key, arrived.version_id, arrived.sequencer, arrived.event]
        case on.EventBridgeEvent():
            return [arrived.account, arrived.region, arrived.source, arrived.id]
        case on.SnsMessage():
            return [arrived.topic, arrived.id]
        case on.SqsMessage():  # not its deduplication id, which says something for five minutes only
            return [arrived.queue, arrived.id]
        case on.HttpRequest():
            return [arrived.method, arrived.path, arrived.id]
        case on.Tick():
            return [arrived.arn, arrived.at.isoformat()]
