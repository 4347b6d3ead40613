"""The templates as data, with CloudFormation's short tags in their long form, and the stack that they make together."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NESTED = "AWS::CloudFormation::Stack"

yaml: Any = import_module("yaml")  # untyped; it comes with moto


def _deployed() -> list[str]:
    """What the Makefile says is deployed of this project."""
    written = re.search(r"^DEPLOYED := ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert written is not None
    return re.findall(r"\S+\.py", written[1])


DEPLOYED = _deployed()


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
    return parsed((ROOT / name).read_text())


def parsed(text: str) -> dict[str, Any]:
    """A template that is not in a file."""
    loaded: dict[str, Any] = yaml.load(text, _Loader)
    return loaded


# --- the whole stack: resources of nested stacks are called EventsQueue/Queue -----------------------------------------

Names = Mapping[str, Any]  # what `Ref`s, "Nested.Outputs.Name" and conditions stand for


@cache
def stack() -> dict[str, dict[str, Any]]:
    """All resources that template.yaml makes with the default of each parameter, those of nested stacks, too."""
    found, _ = flattened("template.yaml", {}, "")
    return found


def flattened(name: str, given: Names, prefix: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Resources and outputs of a template that is deployed with these parameters; names begin with the prefix."""
    text = template(name)
    known: dict[str, Any] = {"AWS::NoValue": None}
    known |= {key: given.get(key, value.get("Default", "")) for key, value in text.get("Parameters", {}).items()}
    known |= {f"if {key}": _is_true(each, known) for key, each in text.get("Conditions", {}).items()}
    made = {key: each for key, each in text["Resources"].items() if known.get(f"if {each.get('Condition')}", True)}
    known |= {key: {"Ref": prefix + key} for key in made}
    found: dict[str, dict[str, Any]] = {}
    waiting = {key: each["Properties"] for key, each in made.items() if each["Type"] == NESTED}
    while waiting:  # in the order in which they need each other's outputs
        ready = next((key for key, each in waiting.items() if not _needed(each) & waiting.keys()), None)
        assert ready is not None, f"{name}: {', '.join(waiting)} refer to each other"
        properties = waiting.pop(ready)
        file = (Path(name).parent / properties["TemplateURL"]).as_posix()
        resources, outputs = flattened(file, _resolved(properties.get("Parameters", {}), known), f"{prefix}{ready}/")
        found |= resources
        known |= {f"{ready}.Outputs.{output}": value for output, value in outputs.items()}
    found |= {prefix + key: _resolved(each, known) for key, each in made.items()}
    return found, {key: _resolved(each["Value"], known) for key, each in text.get("Outputs", {}).items()}


def _needed(resource: dict[str, Any]) -> set[str]:
    """The stacks whose outputs a resource mentions."""
    return set(re.findall(r"(\w+)\.Outputs\.", json.dumps(resource)))


def _is_true(condition: Any, known: Names) -> bool:
    match condition:
        case {"Fn::Equals": [first, second]}:
            return bool(_resolved(first, known) == _resolved(second, known))
        case {"Fn::Not": [other]}:
            return not _is_true(other, known)
        case _:
            raise AssertionError(f"a condition of another kind: {condition}")


def _resolved(value: Any, known: Names) -> Any:
    match value:
        case {"Ref": str(name)}:
            return known.get(name, value)
        case {"Fn::GetAtt": str(name)} if name not in known:
            resource, _, attribute = name.partition(".")
            return {"Fn::GetAtt": f"{known[resource]['Ref']}.{attribute}"}
        case {"Fn::GetAtt": str(name)}:
            return known[name]
        case {"Fn::Sub": str(text)}:
            return {"Fn::Sub": re.sub(r"\$\{([^}]+)\}", lambda found: _inlined(found[1], known), text)}
        case {"Fn::If": [condition, yes, no]}:
            return _resolved(yes if known[f"if {condition}"] else no, known)
        case dict():
            found = {key: _resolved(each, known) for key, each in value.items()}
            return {key: each for key, each in found.items() if each is not None}
        case list():
            return [_resolved(each, known) for each in value]
        case _:
            return value


def _inlined(name: str, known: Names) -> str:
    resource, _, attribute = name.partition(".")
    match known.get(name, known.get(resource)):
        case {"Fn::GetAtt": str(other)}:
            return f"${{{other}}}"
        case {"Ref": str(other)}:
            return f"${{{other}.{attribute}}}" if attribute and name not in known else f"${{{other}}}"
        case {"Fn::Sub": str(other)}:
            return other
        case None:
            return f"${{{name}}}"
        case other:
            return str(other)


def resources(type_: str, name: str | None = None) -> dict[str, dict[str, Any]]:
    """The properties of all resources of a type, by logical id: of the whole stack, or of one template."""
    found = stack() if name is None else template(name)["Resources"]
    return {id_: each.get("Properties", {}) for id_, each in found.items() if each["Type"] == type_}


FUNCTION, QUEUE, SOURCE = "AWS::Serverless::Function", "AWS::SQS::Queue", "AWS::Lambda::EventSourceMapping"
POLICY = "AWS::IAM::ManagedPolicy"


def referred(value: Any) -> set[str]:
    """The logical ids that a value mentions."""
    return set(re.findall(r'(?:"Fn::GetAtt": "|"Ref": "|\$\{)([\w/]+)', json.dumps(value)))


def statements(function: str) -> list[dict[str, Any]]:
    """What a function's role says, each with a list of actions."""
    found: list[dict[str, Any]] = []
    for policy in resources(FUNCTION)[function].get("Policies", []):
        shared = policy.get("Ref")
        document = resources(POLICY)[shared]["PolicyDocument"] if shared else policy
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
    """The activities of each queue, by the logical id of the queue's stack."""
    text = environment()["DURABLY_ACTIVITY_QUEUES"]["Fn::Sub"]
    queues: dict[str, list[str]] = json.loads(re.sub(r"\$\{(\w+)\.Outputs\.Url\}", r"\1", text))
    return queues
