"""`durably template`: what `template.yaml` must say about the activities and triggers found in code.

A group is a module of activities: `activities/routing.py` is RoutingActivities, with a function, a queue and a
dead-letter queue. The template is edited as text, so that comments and whatever was tuned by hand stay: lists between
`# durably template: ...` and `# durably template: end` are kept up to date, resources that are missing are added, and
nothing is ever removed, because running executions may still wait for it. Triggers are in template_triggers.py.
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
from durably.cli.function_files import handing
from durably.cli.template_triggers import file_with, sources_with, triggers_of, with_triggers
from durably.cli.yaml_text import added, between
from durably.core.errors import ConfigurationError
from durably.embedded.discovery import Definitions, discover

_TIMEOUT_S = 30
_LAMBDA_MAX_S = 900
_MARGIN_S = 10
_FOLDERS = ("activities", "orchestrators")


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
    names = sorted({*re.findall(r"^  (\w+Activities):", template, re.MULTILINE), *(g.resource for g in groups)})
    queues = ",\n   ".join(f'"${{{group.resource}Queue.Outputs.Url}}": {json.dumps(group.names)}' for group in groups)
    template = between(template, "activities", f"DURABLY_ACTIVITY_QUEUES: !Sub >-\n  {{{queues}}}\n")
    for what, output in (("activity queues", "Arn"), ("dead-letter queues", "DeadLettersArn")):
        template = between(template, what, "".join(f"- !GetAtt {name}Queue.Outputs.{output}\n" for name in names))
    return added(template, "Resources", {group.resource: resources(group) for group in groups})


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


def function_file(group: Group, text: str = "") -> str:
    """The file of the group's Lambda function; what is in it already stays."""
    names = sorted(_variable(activity) for activity in group.activities)
    return handing(text, "activity_handler", [(group.module, name) for name in names])


def _variable(activity: Activity[..., Any]) -> str:
    """What the activity is called in its module, which its persisted name need not be."""
    module = sys.modules[activity.implementation.__module__]
    return next((name for name, value in vars(module).items() if value is activity), activity.name)


def template(options: Options) -> int:
    """`durably template`: print what is missing, write it (`--update`), or fail if anything is (`--check`)."""
    path, functions = Path(options.template), Path(options.functions)
    if not path.is_file():
        raise ConfigurationError(f"There is no {path} here. Name the SAM template with --template.")
    found = discover(options.paths or [folder for folder in _FOLDERS if Path(folder).is_dir()] or _FOLDERS[:1])
    groups = groups_of(found.activities)
    before = {path: path.read_text()}
    after = {path: updated(before[path], groups)}
    for group in groups:
        file = functions / f"{group.stem}.py"
        before[file] = file.read_text() if file.is_file() else ""
        after[file] = function_file(group, before[file])
    if found.triggers:
        _add_triggers(found, path, functions, before, after)
    shown = "".join(line for file, text in after.items() for line in _difference(str(file), before[file], text))
    print(shown, end="")
    if options.check:
        return 1 if shown else 0
    if options.update:
        for file, text in after.items():
            if text != before[file]:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
    return 0


def _add_triggers(
    found: Definitions, path: Path, functions: Path, before: dict[Path, str], after: dict[Path, str]
) -> None:
    """What triggers need: in the template, in that of their sources, and in their function's file."""
    triggers = triggers_of(found)
    sources, file = functions.parent / "triggers.yaml", functions / "triggers.py"
    for each in (sources, file):
        before[each] = each.read_text() if each.is_file() else ""
    after[path] = with_triggers(after[path], triggers)
    after[sources] = sources_with(before[sources], triggers)
    after[file] = file_with(before[file], triggers, found.orchestrators)


def _difference(name: str, before: str, after: str) -> list[str]:
    return list(difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), name, name))


_SECRET = """\
        - Statement:
            - { Effect: Allow, Action: secretsmanager:GetSecretValue, Resource: !GetAtt Storage.Outputs.TokenSecret }
"""

_RESOURCES = """\
  {name}: # {path}
    Type: AWS::Serverless::Function
    Metadata: {{ BuildMethod: makefile }}
    Properties:
      Handler: {handler}.handler
      Timeout: {timeout}
      Policies:
        - !GetAtt Storage.Outputs.Use
        - !GetAtt Schedules.Outputs.Use
        - !Ref SendMessages
        - !GetAtt {name}Queue.Outputs.Consume
{secret}
  {name}Queue:
    Type: AWS::CloudFormation::Stack
    Properties:
      TemplateURL: infra/queue.yaml
      Parameters: {{ VisibilityTimeout: {visibility} }} # a little above the function's timeout

  {name}Consumer:
    Type: AWS::CloudFormation::Stack
    Properties:
      TemplateURL: infra/consumer.yaml
      Parameters:
        Function: !Ref {name}
        Queue: !GetAtt {name}Queue.Outputs.Arn
        DeadLetters: !GetAtt {name}Queue.Outputs.DeadLettersArn
        DeadLettersFunction: !Ref DeadLetters
        AlarmTopic: !Ref AlarmTopic
"""
