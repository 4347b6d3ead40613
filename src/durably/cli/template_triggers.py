"""What `template.yaml` must say about triggers.

All of them share a function. Rules, topics and schedules (infra/triggers.yaml) put what they have into TriggersQueue,
so that nothing is lost while the function cannot run, and no bucket refers to a function that refers to the bucket.
What code leaves open (a bucket, a topic, when a schedule is due) becomes a parameter.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from durably import on
from durably.api.orchestrator import Orchestrator
from durably.cli import trigger_resources as yaml
from durably.cli.function_files import Definition, handing
from durably.cli.yaml_text import added, listed
from durably.core.errors import ConfigurationError
from durably.embedded.discovery import Definitions

_TAKEN = {"Alarm", "Delay", "Events", "RoutingOrchestrator", "Timers", "Triggers"}  # by durably's own resources


@dataclass(frozen=True, slots=True)
class Source:
    """A trigger and what brings it to the function.

    Attributes:
        name: of its resources, in both templates: `users_arrived` gives `UsersArrived`.
        module: where its function, or its orchestrator, is.
        variable: what that is called there.
        wanted: what was declared.
    """

    name: str
    module: str
    variable: str
    kind: type[Any]
    wanted: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a source needs, as YAML by key.

    Attributes:
        parameters: of template.yaml.
        resources: of template.yaml.
        passed: parameters of infra/triggers.yaml, and what template.yaml passes.
        sources: resources of infra/triggers.yaml.
        sender: whose ARN may put messages into TriggersQueue, as infra/triggers.yaml refers to it.
    """

    parameters: dict[str, str] = field(default_factory=dict[str, str])
    resources: dict[str, str] = field(default_factory=dict[str, str])
    passed: dict[str, str] = field(default_factory=dict[str, str])
    sources: dict[str, str] = field(default_factory=dict[str, str])
    sender: str | None = None


def triggers_of(found: Definitions) -> list[Source]:
    """The triggers found in code, by the names of their resources.

    Raises:
        ConfigurationError: a name is taken.
    """
    sources: dict[str, Source] = {}
    for trigger in found.triggers:
        target = trigger.orchestrators[0].fn if trigger.orchestrators else trigger.decide
        module, variable = target.__module__, target.__name__
        name = "".join(word.capitalize() for word in variable.split("_"))
        same = [each for each in sources.values() if each.variable == variable]
        if any(each.module != module for each in same):
            raise ConfigurationError(
                f"Two triggers are called {variable}, in {same[0].module} and in {module}. Rename one of them."
            )
        if name in _TAKEN or name.endswith("Activities"):
            raise ConfigurationError(
                f"A trigger cannot be called {variable}, in {module}: the template has such resources. Rename it."
            )
        name += str(len(same) + 1) if same else ""
        sources[name] = Source(name, module, variable, trigger.kind, dict(trigger.wanted))
    return list(sources.values())


def with_triggers(template: str, triggers: Sequence[Source]) -> str:
    """template.yaml, with the function of these triggers, its queue, and what their sources need."""
    parts = [_PARTS[each.kind](each) for each in triggers]
    for each in parts:
        template = added(template, "Parameters", each.parameters)
    template = added(template, "Resources", {"Triggers": yaml.FUNCTION})
    for each in parts:
        template = added(template, "Resources", each.resources)
    queues = ["TriggersQueue", *(name for each in parts for name in each.resources if name.endswith("Queue"))]
    template = listed(template, "trigger queues", [f"- !GetAtt {name}.Outputs.Consume" for name in queues])
    passed = [f"{name}: {value}" for each in parts for name, value in each.passed.items()]
    return listed(template, "trigger sources", passed)


def sources_with(template: str, triggers: Sequence[Source]) -> str:
    """infra/triggers.yaml, with a source for each of these triggers."""
    template = template or yaml.SOURCES
    senders: list[str] = []
    for each in (_PARTS[trigger.kind](trigger) for trigger in triggers):
        template = added(template, "Parameters", {name: f"  {name}: {{ Type: String }}\n" for name in each.passed})
        template = added(template, "Resources", each.sources)
        senders += [] if each.sender is None else [f"- {each.sender}"]
    return listed(template, "senders", senders)


def file_with(text: str, triggers: Sequence[Source], orchestrators: Sequence[Orchestrator[..., Any]]) -> str:
    """The function's file; it starts what the modules of these triggers know."""
    handed = list(dict.fromkeys((each.module, each.variable) for each in triggers))
    known = [value for module, _ in handed for value in vars(sys.modules[module]).values()]
    started = [flow for flow in orchestrators if any(flow is value for value in known)]
    starts: list[Definition] = [(flow.fn.__module__, flow.fn.__name__) for flow in started]
    return handing(text, "trigger_handler", handed, [each for each in starts if each not in handed])


# --- what each kind needs -----------------------------------------------------------------------------------------


def _of_s3(source: Source) -> Parts:
    bucket, event = source.wanted["bucket"], source.wanted["event"]
    if event == "ObjectCreated:*":
        event = "Object Created"
    elif ":" in event:
        raise ConfigurationError(
            f"{source.variable}: EventBridge, through which the template has S3 tell of objects, has other names for "
            f'events than {event!r}, such as "Object Deleted". Write one of those.'
        )
    pattern: dict[str, Any] = {"source": ["aws.s3"], "detail-type": _matching(event) or [{"prefix": "Object "}]}
    key = f"{_literal(source.wanted['prefix'])}*{_literal(source.wanted['suffix'])}"
    detail = f"bucket: {{ name: [!Ref {source.name}Bucket] }}"
    if key != "*":
        detail += f", object: {{ key: {json.dumps(_matching(key))} }}"
    any_will_do = bucket == "*"
    default = "" if "*" in bucket and not any_will_do else f"    Default: {json.dumps(bucket.strip('*'))}\n"
    empty = "; empty, and one is made" if any_will_do else ""
    return Parts(
        parameters={
            f"{source.name}BucketName": f"  {source.name}BucketName:\n    Type: String\n{default}"
            f"    Description: Bucket whose objects {source.variable} is told of, through EventBridge{empty}.\n"
        },
        resources={f"{source.name}Bucket": yaml.BUCKET.format(name=source.name, variable=source.variable)},
        passed={f"{source.name}Bucket": f"!GetAtt {source.name}Bucket.Outputs.Name"},
        sources={f"{source.name}Rule": _rule(source, pattern, detail=detail)},
        sender=f"!GetAtt {source.name}Rule.Arn",
    )


def _of_eventbridge(source: Source) -> Parts:
    wanted = {"source": source.wanted["source"], "detail-type": source.wanted["detail_type"]}
    pattern = {name: _matching(value) for name, value in wanted.items() if value != "*"}
    return Parts(
        parameters={
            f"{source.name}Bus": f"  {source.name}Bus:\n    Type: String\n    Default: default\n"
            f"    Description: Name of the event bus whose events {source.variable} takes.\n"
        },
        passed={f"{source.name}Bus": f"!Ref {source.name}Bus"},
        sources={f"{source.name}Rule": _rule(source, pattern or {"source": [{"prefix": ""}]}, bus=f"{source.name}Bus")},
        sender=f"!GetAtt {source.name}Rule.Arn",
    )


def _of_sns(source: Source) -> Parts:
    name = f"{source.name}Topic"
    return Parts(
        parameters={
            name: f"  {name}:\n    Type: String\n"
            f"    Description: ARN of a topic named {source.wanted['topic']}, whose messages {source.variable} takes.\n"
        },
        passed={name: f"!Ref {name}"},
        sources={f"{source.name}Subscription": yaml.SUBSCRIPTION.format(name=source.name, place=_place(source))},
        sender=f"!Ref {name}",
    )


def _of_sqs(source: Source) -> Parts:
    name = source.wanted["queue"].replace("*", "")
    given = "" if name in ("", ".fifo") else f", Name: {name}"
    given += ', Fifo: "true"' if name.endswith(".fifo") else ""
    return Parts(
        resources={
            f"{source.name}Queue": yaml.QUEUE.format(name=source.name, place=_place(source), given=given),
            f"{source.name}Consumer": yaml.CONSUMER.format(name=source.name),
        }
    )


def _of_http(source: Source) -> Parts:
    method, _, path = source.wanted["route"].partition(" ")
    anything = re.sub(r"\{[^}]*\}", "*", path)
    text = yaml.ROUTE.format(name=source.name, place=_place(source), route=source.wanted["route"])
    return Parts(
        sources={
            "Integration": yaml.INTEGRATION,
            f"{source.name}Route": text,
            f"{source.name}Permission": yaml.PERMISSION.format(name=source.name, request=f"{method}{anything}"),
        }
    )


def _of_schedule(source: Source) -> Parts:
    name = f"{source.name}Expression"
    rule = source.wanted["rule"].replace("*", "") or source.variable
    return Parts(
        parameters={
            name: f"  {name}:\n    Type: String\n"
            f"    Description: When {source.variable} is due, such as rate(1 day) or cron(0 2 * * ? *).\n"
        },
        passed={name: f"!Ref {name}"},
        sources={
            "ScheduleGroup": yaml.SCHEDULE_GROUP,
            "ScheduleRole": yaml.SCHEDULE_ROLE,
            f"{source.name}Schedule": yaml.SCHEDULE.format(
                name=source.name, place=_place(source), rule=json.dumps(rule)
            ),
        },
    )


_PARTS: dict[type[Any], Callable[[Source], Parts]] = {
    on.S3Object: _of_s3,
    on.EventBridgeEvent: _of_eventbridge,
    on.SnsMessage: _of_sns,
    on.SqsMessage: _of_sqs,
    on.HttpRequest: _of_http,
    on.Tick: _of_schedule,
}


def _place(source: Source) -> str:
    return f"{source.variable} in {source.module.replace('.', '/')}.py"


def _literal(text: str) -> str:
    return re.sub(r"([*\\])", r"\\\1", text)


def _matching(text: str) -> list[Any]:
    """What EventBridge compares with, for a text where `*` stands for anything; empty for anything at all."""
    if text == "*":
        return []
    return [{"wildcard": re.sub(r"\*+", "*", text)}] if "*" in text else [text]


def _rule(source: Source, pattern: dict[str, Any], *, detail: str = "", bus: str = "") -> str:
    lines = [f"        {name}: {json.dumps(value)}\n" for name, value in pattern.items()]
    lines += [f"        detail: {{ {detail} }}\n"] if detail else []
    of_bus = f"      EventBusName: !Ref {bus}\n" if bus else ""
    return yaml.RULE.format(name=source.name, place=_place(source), bus=of_bus, pattern="".join(lines))
