"""A history as a file: one JSON document an execution, readable, diffable, and replayable anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from durably.codec import wire
from durably.core.errors import ClientError
from durably.core.history import Turn
from durably.core.keys import RunKey
from durably.ports.records import Record

FORMAT = "durably.history"
VERSION = 1

_FIELDS: dict[str, type] = {
    "execution_id": str,
    "gen": str,
    "orchestrator": str,
    "status": str,
    "code_version": str,
    "runs": list,
}
_NAMES = {str: "string", int: "number", list: "list"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedRun:
    """A run, and its turns from the first."""

    key: RunKey
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedHistory:
    """One life of an execution, as it was when it was exported.

    Attributes:
        status: of its record.
        code_version: of the last turn that changed its record.
        runs: in order, the last one being the current one; those before it may be left out.
    """

    execution_id: str
    gen: str
    orchestrator: str
    status: str
    code_version: str
    runs: tuple[ExportedRun, ...]


def exported(record: Record, runs: Iterable[ExportedRun]) -> ExportedHistory:
    """A stored execution."""
    return ExportedHistory(
        execution_id=record.execution_id,
        gen=record.gen,
        orchestrator=record.orchestrator,
        status=record.status,
        code_version=record.code_version,
        runs=tuple(runs),
    )


def encode_export(history: ExportedHistory) -> str:
    """The document: a line a field, so that two of them can be compared."""
    document: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    document |= {name: getattr(history, name) for name in _FIELDS if name != "runs"}
    document["runs"] = [
        {"run": run.key.run, "turns": [json.loads(wire.encode_turn(turn)) for turn in run.turns]}
        for run in history.runs
    ]
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def decode_export(text: str) -> ExportedHistory:
    """What a document says; fields that this version does not know are ignored.

    Raises:
        ClientError: it is no such document.
        WireError: a newer version of durably wrote it.
        StorageError: a turn in it is damaged.
    """
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ClientError(f"An exported history should be JSON, but: {error}. Export it again.") from error
    if not isinstance(loaded, dict) or cast("dict[str, Any]", loaded).get("format") != FORMAT:
        raise ClientError(
            f'An exported history should be a JSON object with "format": "{FORMAT}". `durably export ID` writes one.'
        )
    document = cast("dict[str, Any]", loaded)
    if document.get("version") != VERSION:
        raise wire.WireError(
            f"This history has version {document.get('version')} of its format, and this durably reads {VERSION}. "
            "Replay it with the version of durably that exported it, or with a newer one."
        )
    fields = {name: _field(document, name, kind) for name, kind in _FIELDS.items()}
    fields["runs"] = tuple(_decode_run(fields["execution_id"], fields["gen"], run) for run in fields["runs"])
    return ExportedHistory(**fields)


def _decode_run(execution_id: str, gen: str, run: Any) -> ExportedRun:
    number, turns = _field(run, "run", int), _field(run, "turns", list)
    return ExportedRun(
        key=RunKey(execution_id, gen, number),
        turns=tuple(wire.decode_turn(json.dumps(turn, ensure_ascii=False)) for turn in turns),
    )


def _field(document: Any, name: str, kind: type) -> Any:
    value = cast("dict[str, Any]", document).get(name) if isinstance(document, dict) else None
    if not isinstance(value, kind):
        raise ClientError(
            f"An exported history should hold a {_NAMES[kind]} as {name!r}, got {value!r}. Export it again."
        )
    return value
