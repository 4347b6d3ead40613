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
    "run": int,
    "orchestrator": str,
    "status": str,
    "code_version": str,
    "turns": list,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedHistory:
    """One run of one execution, as it was when it was exported.

    Attributes:
        status: of its record.
        code_version: of the last turn that changed its record.
    """

    execution_id: str
    gen: str
    run: int
    orchestrator: str
    status: str
    code_version: str
    turns: tuple[Turn, ...]

    @property
    def key(self) -> RunKey:
        """The run."""
        return RunKey(self.execution_id, self.gen, self.run)


def exported(record: Record, turns: Iterable[Turn]) -> ExportedHistory:
    """The current run of a stored execution."""
    return ExportedHistory(
        execution_id=record.execution_id,
        gen=record.gen,
        run=record.run,
        orchestrator=record.orchestrator,
        status=record.status,
        code_version=record.code_version,
        turns=tuple(turns),
    )


def encode_export(history: ExportedHistory) -> str:
    """The document: a line a field, so that two of them can be compared."""
    document: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    document |= {name: getattr(history, name) for name in _FIELDS if name != "turns"}
    document["turns"] = [json.loads(wire.encode_turn(turn)) for turn in history.turns]
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
    for name, kind in _FIELDS.items():
        if not isinstance(document.get(name), kind):
            raise ClientError(
                f"An exported history should hold a {kind.__name__} as {name!r}, got {document.get(name)!r}. "
                "Export it again."
            )
    fields: dict[str, Any] = {name: document[name] for name in _FIELDS}
    fields["turns"] = tuple(wire.decode_turn(json.dumps(turn, ensure_ascii=False)) for turn in document["turns"])
    return ExportedHistory(**fields)
