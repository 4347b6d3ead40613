"""The templates as data, with CloudFormation's short tags in their long form."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TEMPLATES = ("template.yaml", "infra/routes.yaml", "infra/watch.yaml", "infra/alarms.yaml")

yaml: Any = import_module("yaml")  # untyped; it comes with moto


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML with `!Ref`, `!GetAtt` and the rest."""


def _long_form(loader: Any, suffix: str, node: Any) -> Any:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _long_form)


@cache
def template(name: str = "template.yaml") -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((ROOT / name).read_text(), _Loader)
    return loaded


def parsed(text: str) -> dict[str, Any]:
    """A template that is not in a file."""
    loaded: dict[str, Any] = yaml.load(text, _Loader)
    return loaded


def resources(type_: str, name: str = "template.yaml") -> dict[str, dict[str, Any]]:
    """The properties of all resources of a type, by logical id."""
    found = template(name)["Resources"].items()
    return {id_: each.get("Properties", {}) for id_, each in found if each["Type"] == type_}


FUNCTION, QUEUE, SOURCE = "AWS::Serverless::Function", "AWS::SQS::Queue", "AWS::Lambda::EventSourceMapping"


def referred(value: Any) -> set[str]:
    """The logical ids that a value mentions."""
    return set(re.findall(r'(?:"Fn::GetAtt": "|"Ref": "|\$\{)(\w+)', json.dumps(value)))


def statements(function: str) -> list[dict[str, Any]]:
    """What a function's role says, each with a list of actions."""
    found: list[dict[str, Any]] = []
    for policy in resources(FUNCTION)[function].get("Policies", []):
        shared = policy.get("Ref")
        document = resources("AWS::IAM::ManagedPolicy")[shared]["PolicyDocument"] if shared else policy
        found += document["Statement"]
    return [
        {**each, "Action": each["Action"] if isinstance(each["Action"], list) else [each["Action"]]} for each in found
    ]


def allowed(function: str) -> set[tuple[str, str]]:
    """What a function's role may do: action, and logical id of a resource."""
    return {
        (action, id_)
        for statement in statements(function)
        for action in statement["Action"]
        for id_ in referred(statement["Resource"])
    }


def environment() -> dict[str, Any]:
    """What every function has in its environment."""
    variables: dict[str, Any] = template()["Globals"]["Function"]["Environment"]["Variables"]
    return variables


def activity_queues() -> dict[str, list[str]]:
    """The activities of each queue, by the queue's logical id."""
    text = environment()["DURABLY_ACTIVITY_QUEUES"]["Fn::Sub"]
    queues: dict[str, list[str]] = json.loads(re.sub(r"\$\{(\w+)\}", r"\1", text))
    return queues
