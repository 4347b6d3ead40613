"""Triggers: what arrives from outside becomes a start or a signal. Write `@on.s3(suffix=".csv")` above an orchestrator,
or above a function that says what is to be done. `durably.aws.trigger_handler` carries it out; nothing of AWS is loaded
here.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar, cast, overload
from urllib.parse import unquote

from durably.api.names import check_execution_id
from durably.api.orchestrator import Orchestrator
from durably.core.channels import Signal
from durably.core.errors import DefinitionError, PayloadError

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


# --- what arrives ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class S3Object:
    """An object of which S3 told something; its key is decoded.

    Attributes:
        event: "ObjectCreated:Put" and the like, or "Object Created" where it came through EventBridge.
        sequencer: orders the events of one key; the time of those that S3 does not number.
    """

    bucket: str
    key: str
    event: str = "ObjectCreated:Put"
    sequencer: str = ""
    version_id: str | None = None
    etag: str | None = None
    size: int | None = None


@dataclass(frozen=True, kw_only=True)
class EventBridgeEvent:
    """An event of a bus."""

    id: str
    source: str
    detail_type: str
    at: datetime
    detail: dict[str, Any] = field(default_factory=dict[str, Any])
    resources: list[str] = field(default_factory=list[str])
    account: str = ""
    region: str = ""


@dataclass(frozen=True, kw_only=True)
class SnsMessage:
    """A message of a topic."""

    id: str
    topic: str
    message: str
    subject: str | None = None
    attributes: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, kw_only=True)
class SqsMessage:
    """A message of a queue.

    Attributes:
        id: SQS's; a copy that a sender sent again has another one.
        queue: its name.
        deduplication_id: of a FIFO queue.
    """

    id: str
    queue: str
    body: str
    attributes: dict[str, str] = field(default_factory=dict[str, str])
    deduplication_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class HttpRequest:
    """A request through API Gateway (payload format 2.0) or a function URL.

    Attributes:
        id: the header `Idempotency-Key`, by which a client makes its retries one request; else the gateway's id.
        headers: by name in lower case.
        parameters: of the path.
        body: as text; bytes that are no text are escaped.
    """

    id: str
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict[str, str])
    query: dict[str, str] = field(default_factory=dict[str, str])
    parameters: dict[str, str] = field(default_factory=dict[str, str])
    body: str = ""

    def json(self) -> Any:
        """The body, read as JSON.

        Raises:
            PayloadError: it is none.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise PayloadError(f"The body is not JSON: {error}.") from error


@dataclass(frozen=True, kw_only=True)
class Tick:
    """An instant of a rule of EventBridge, or of a schedule of its Scheduler.

    Attributes:
        rule: its name.
        arn: of the rule: others may have the same name, on another bus or in another group.
    """

    rule: str
    at: datetime
    arn: str = ""


# --- what is to be done ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Start:
    """Start an execution."""

    orchestrator: Orchestrator[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Send:
    """Send a signal, to an execution that is started with it if there is none and `start` says how."""

    execution_id: str
    signal: Signal[Any]
    payload: Any
    start: Start | None = None


Outcome: TypeAlias = Start | Send | None


def start(orchestrator: Orchestrator[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Start:
    """Start an execution; its id follows from what arrived, unless `orchestrator.options(execution_id=...)` says it."""
    return Start(orchestrator=orchestrator, args=args, kwargs=kwargs)


def signal(execution_id: str, signal: Signal[S], payload: S, /) -> Send:
    """Send a signal to an execution."""
    return Send(execution_id=check_execution_id(execution_id), signal=signal, payload=payload)


def signal_with_start(
    execution_id: str,
    signal: Signal[S],
    payload: S,
    orchestrator: Orchestrator[P, R],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> Send:
    """Send a signal to an execution, which is started with it if there is none."""
    begun = Start(orchestrator=orchestrator, args=args, kwargs=kwargs)
    return Send(execution_id=check_execution_id(execution_id), signal=signal, payload=payload, start=begun)


# --- triggers ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Trigger(Generic[T]):
    """What is to be done about what arrives.

    Attributes:
        kind: the class of what it takes.
        take: what it takes of this one; None if it wants nothing of it.
        decide: what is to be done.
        wanted: what was declared, such as {"prefix": "users/"}; `durably template` makes a filter of it.
        orchestrators: those that it is known to start.
    """

    kind: type[T]
    take: Callable[[T], T | None]
    decide: Callable[[T], Outcome]
    wanted: Mapping[str, str]
    orchestrators: tuple[Orchestrator[..., Any], ...] = ()


class On(Generic[T]):
    """A decorator: above an orchestrator, which is started with what arrives as its one argument and stays what it is;
    or above a function from what arrives to `start(...)`, `signal(...)`, `signal_with_start(...)` or None.
    """

    def __init__(self, kind: type[T], take: Callable[[T], T | None], **wanted: str) -> None:
        self._kind = kind
        self._take = take
        self._wanted = wanted

    @overload
    def __call__(self, target: Orchestrator[P, R], /) -> Orchestrator[P, R]: ...
    @overload
    def __call__(self, target: Callable[[T], Outcome], /) -> Trigger[T]: ...
    def __call__(self, target: Any, /) -> Any:
        """Raises DefinitionError if `target` does not take one argument."""
        if not isinstance(target, Orchestrator):
            _takes_one(target, skip=0)
            return Trigger(kind=self._kind, take=self._take, decide=target, wanted=self._wanted)
        flow = cast("Orchestrator[..., Any]", target)
        _takes_one(flow.fn, skip=1)

        def decide(arrived: T) -> Outcome:
            return start(flow, arrived)

        made = Trigger(kind=self._kind, take=self._take, decide=decide, wanted=self._wanted, orchestrators=(flow,))
        flow.triggers.append(made)
        return flow


def s3(*, bucket: str = "*", prefix: str = "", suffix: str = "", event: str = "ObjectCreated:*") -> On[S3Object]:
    """An object of S3, notified directly, through a topic, a queue or EventBridge.

    Args:
        bucket: its name; `*` stands for anything.
        prefix: how its key begins.
        suffix: how its key ends.
        event: of it; `*` stands for anything. EventBridge knows the default as "Object Created", and says no more.
    """

    def wants(found: S3Object) -> bool:
        told = "ObjectCreated:" if found.event == "Object Created" else found.event
        happened = fnmatchcase(told, event) or fnmatchcase(found.event, event)
        return (
            happened
            and fnmatchcase(found.bucket, bucket)
            and found.key.startswith(prefix)
            and found.key.endswith(suffix)
        )

    return On(S3Object, _if(wants), bucket=bucket, prefix=prefix, suffix=suffix, event=event)


def eventbridge(*, source: str = "*", detail_type: str = "*") -> On[EventBridgeEvent]:
    """An event of a bus, directly or through a queue; `*` stands for anything."""

    def wants(found: EventBridgeEvent) -> bool:
        return fnmatchcase(found.source, source) and fnmatchcase(found.detail_type, detail_type)

    return On(EventBridgeEvent, _if(wants), source=source, detail_type=detail_type)


def sns(*, topic: str = "*") -> On[SnsMessage]:
    """A message of a topic (its name), directly or through a queue; `*` stands for anything."""
    return On(SnsMessage, _if(lambda found: fnmatchcase(found.topic, topic)), topic=topic)


def sqs(*, queue: str = "*") -> On[SqsMessage]:
    """A message of a queue (its name); `*` stands for anything."""
    return On(SqsMessage, _if(lambda found: fnmatchcase(found.queue, queue)), queue=queue)


def http(route: str) -> On[HttpRequest]:
    """A request.

    Args:
        route: method and path, as API Gateway has it: "POST /approvals/{batch}".

    Raises:
        DefinitionError: it has another form.
    """
    method, _, path = route.partition(" ")
    if not method.isupper() or not path.startswith("/"):
        raise DefinitionError(f"A route has a method and a path, such as 'POST /approvals/{{batch}}'; got {route!r}.")
    return On(HttpRequest, lambda found: _routed(path, found) if found.method == method else None, route=route)


def schedule(*, rule: str = "*") -> On[Tick]:
    """An instant of a rule or schedule of EventBridge, by name; `*` stands for anything. Prefer `durably.schedules`."""
    return On(Tick, _if(lambda found: fnmatchcase(found.rule, rule)), rule=rule)


def _if(wants: Callable[[T], bool]) -> Callable[[T], T | None]:
    return lambda found: found if wants(found) else None


def _routed(template: str, request: HttpRequest) -> HttpRequest | None:
    """The request with the parameters of its path, if that has this form."""
    wanted, found = template.rstrip("/").split("/"), request.path.rstrip("/").split("/")
    if len(wanted) != len(found):
        return None
    cut: dict[str, str] = {}
    for pattern, part in zip(wanted, found, strict=True):
        if pattern.startswith("{") and pattern.endswith("}"):
            cut[pattern[1:-1]] = unquote(part)
        elif pattern != part:
            return None
    return replace(request, parameters={**cut, **request.parameters})


def _takes_one(fn: Callable[..., Any], *, skip: int) -> None:
    parameters = list(inspect.signature(fn).parameters.values())[skip:]
    needed = [each for each in parameters if each.default is each.empty]
    if len(needed) > 1 or not parameters:
        what = "an orchestrator with a trigger takes the Context and" if skip else "a trigger's function takes"
        raise DefinitionError(f"{getattr(fn, '__qualname__', fn)}: {what} one argument, what arrives.")
