"""`durably template`: what `template.yaml` must say about the activities found in code.

A group is a module of activities: `activities/routing.py` is RoutingActivities, with a function, a queue and a
dead-letter queue. The template is edited as text, so that comments and whatever was tuned by hand stay: lists between
`# durably template: ...` and `# durably template: end` are rewritten, resources that are missing are added, and nothing
is ever removed, because running executions may still wait for it.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from durably.api.activity import Activity, CallbackActivity
from durably.cli.arguments import Options
from durably.core.errors import ConfigurationError
from durably.embedded.discovery import discover

_TIMEOUT_S = 30
_LAMBDA_MAX_S = 900
_MARGIN_S = 10
_OUTPUTS = re.compile(r"^Outputs:", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Group:
    """The activities of one module.

    Attributes:
        module: dotted name of the module that implements them.
        activities: sorted by persisted name.
    """

    module: str
    activities: tuple[Activity[..., Any], ...]

    @property
    def stem(self) -> str:
        """Name of the function's file: `activities.billing.cards` gives `billing_cards_activities`."""
        words = self.module.split(".")
        return "_".join([*(words[1:] or words), "activities"])

    @property
    def resource(self) -> str:
        """Logical id of the function: `BillingCardsActivities`."""
        return "".join(word.capitalize() for word in self.stem.split("_"))

    @property
    def names(self) -> list[str]:
        """Persisted names and aliases, as messages carry them."""
        return sorted({name for activity in self.activities for name in (activity.name, *activity.aliases)})

    @property
    def timeout_seconds(self) -> int:
        """Long enough for the longest start-to-close timeout; what has none gets 30 s."""
        longest = max(map(_seconds, self.activities), default=_TIMEOUT_S)
        return min(longest + _MARGIN_S, _LAMBDA_MAX_S)


def _seconds(activity: Activity[..., Any]) -> int:
    milliseconds = activity.settings.start_to_close_ms
    if milliseconds is None or isinstance(activity, CallbackActivity):  # a callback's is the wait, not the work
        return _MARGIN_S if isinstance(activity, CallbackActivity) else _TIMEOUT_S - _MARGIN_S
    return ceil(milliseconds / 1000)


def groups_of(activities: Iterable[Activity[..., Any]]) -> list[Group]:
    """Activities by the module that implements them, in order of their names."""
    found: dict[str, list[Activity[..., Any]]] = {}
    for activity in activities:
        found.setdefault(activity.implementation.__module__, []).append(activity)
    return [
        Group(module, tuple(sorted(members, key=lambda member: member.name)))
        for module, members in sorted(found.items())
    ]


def updated(template: str, groups: Sequence[Group]) -> str:
    """The template, such that it has a queue, a function, an environment and permissions for each group.

    Raises:
        ConfigurationError: a pair of markers is missing.
    """
    missing = [group for group in groups if not re.search(rf"^  {group.resource}:", template, re.MULTILINE)]
    listed = sorted({*re.findall(r"^  (\w+Activities):", template, re.MULTILINE), *(g.resource for g in groups)})
    queues = ", ".join(f'"${{{group.resource}Queue}}": {json.dumps(group.names)}' for group in groups)
    template = _between(template, "activities", f"DURABLY_ACTIVITY_QUEUES: !Sub >-\n  {{{queues}}}\n")
    for what, suffix in (("activity queues", "Queue"), ("dead-letter queues", "DeadLetters")):
        template = _between(template, what, "".join(f"- !GetAtt {name}{suffix}.Arn\n" for name in listed))
    added = "".join(resources(group) + "\n" for group in missing)
    outputs = _OUTPUTS.search(template)
    if outputs is None:
        return template.rstrip("\n") + "\n" + ("\n" + added.rstrip("\n") + "\n" if added else "")
    return template[: outputs.start()] + added + template[outputs.start() :]


def _between(template: str, what: str, lines: str) -> str:
    """The template with these lines between the markers of that name, indented as those are."""
    pattern = re.compile(
        rf"^(?P<indent> *)# durably template: {what}\n.*?^ *# durably template: end\n", re.MULTILINE | re.DOTALL
    )
    found = pattern.search(template)
    if found is None:
        raise ConfigurationError(
            f"The template should hold the comments `# durably template: {what}` and, some lines below, `# durably "
            "template: end`, and does not; between them stands what this command keeps. Put them back: durably's own "
            "template.yaml shows where."
        )
    indent = found["indent"]
    body = "".join(f"{indent}{line}" for line in lines.splitlines(keepends=True))
    marked = f"{indent}# durably template: {what}\n{body}{indent}# durably template: end\n"
    return template[: found.start()] + marked + template[found.end() :]


def resources(group: Group) -> str:
    """The resources of a group, as YAML below `Resources:`."""
    return _RESOURCES.format(
        name=group.resource,
        path=group.module.replace(".", "/") + ".py",
        handler=group.stem,
        timeout=group.timeout_seconds,
        visibility=group.timeout_seconds + _MARGIN_S,
        secret=_SECRET if any(isinstance(each, CallbackActivity) for each in group.activities) else "",
    )


def function_file(group: Group) -> str:
    """The two lines of the group's Lambda function."""
    names = sorted(_variable(activity) for activity in group.activities)
    imports = sorted([f"from {group.module} import {', '.join(names)}", "from durably.aws import activity_handler"])
    return "\n".join([*imports, "", f"handler = activity_handler({', '.join(names)})", ""])


def _variable(activity: Activity[..., Any]) -> str:
    """What the activity is called in its module, which its persisted name need not be."""
    module = sys.modules[activity.implementation.__module__]
    return next((name for name, value in vars(module).items() if value is activity), activity.name)


def template(options: Options) -> int:
    """`durably template`: print what is missing, write it (`--update`), or fail if anything is (`--check`)."""
    path, functions = Path(options.template), Path(options.functions)
    groups = groups_of(discover(options.paths).activities)
    before = path.read_text() if path.is_file() else None
    if before is None:
        raise ConfigurationError(f"There is no {path} here. Name the SAM template with --template.")
    after = updated(before, groups)
    files = {functions / f"{group.stem}.py": function_file(group) for group in groups}
    files = {file: text for file, text in files.items() if not file.exists()}
    shown = [*_difference(str(path), before, after)]
    for file, text in files.items():
        shown += _difference(str(file), "", text)
    print("".join(shown), end="")
    if options.check:
        return 1 if shown else 0
    if options.update:
        path.write_text(after)
        for file, text in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    return 0


def _difference(name: str, before: str, after: str) -> list[str]:
    return list(difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), name, name))


_SECRET = """\
            - { Effect: Allow, Action: secretsmanager:GetSecretValue, Resource: !GetAtt TokenSecret.Id }
"""

_RESOURCES = """\
  {name}: # {path}
    Type: AWS::Serverless::Function
    Metadata: {{ BuildMethod: makefile }}
    Properties:
      Handler: {handler}.handler
      Timeout: {timeout}
      Policies:
        - !Ref UseStorage
        - !Ref SendMessages
        - Statement:
{secret}            - Effect: Allow
              Action: [sqs:ReceiveMessage, sqs:DeleteMessage, sqs:GetQueueAttributes, sqs:ChangeMessageVisibility*]
              Resource: !GetAtt {name}Queue.Arn

  {name}Source:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      FunctionName: !Ref {name}
      EventSourceArn: !GetAtt {name}Queue.Arn
      BatchSize: 1
      ScalingConfig: {{ MaximumConcurrency: 20 }}
      FunctionResponseTypes: [ReportBatchItemFailures]

  {name}Queue:
    Type: AWS::SQS::Queue
    Properties:
      MessageRetentionPeriod: 1209600
      VisibilityTimeout: {visibility} # a little above the function's timeout: a process that dies costs so long
      SqsManagedSseEnabled: true
      RedrivePolicy: {{ deadLetterTargetArn: !GetAtt {name}DeadLetters.Arn, maxReceiveCount: 20 }}

  {name}DeadLetters:
    Type: AWS::SQS::Queue
    Properties:
      MessageRetentionPeriod: 1209600
      VisibilityTimeout: 60
      SqsManagedSseEnabled: true

  {name}DeadLettersSource:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      FunctionName: !Ref DeadLetters
      EventSourceArn: !GetAtt {name}DeadLetters.Arn
      ScalingConfig: {{ MaximumConcurrency: 2 }}
      FunctionResponseTypes: [ReportBatchItemFailures]

  {name}Alarms:
    Type: AWS::CloudFormation::Stack
    Properties:
      TemplateURL: infra/alarms.yaml
      Parameters:
        Function: !Ref {name}
        Queue: !GetAtt {name}Queue.QueueName
        DeadLetters: !GetAtt {name}DeadLetters.QueueName
        Topic: !Ref AlarmTopic
"""
