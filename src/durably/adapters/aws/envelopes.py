"""The body of an SQS message: a message of ours with what a consumer must know before it reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from durably.adapters.aws.bodies import Bodies, Reference
from durably.codec import wire
from durably.core.errors import StorageError
from durably.ports.messages import Message, Outgoing

BY_REFERENCE_BYTES = 200 * 1024  # the scheduler takes 256 KB, SQS bills per 64 KB
# Legal in JSON and in UTF-8, refused by SQS (AWS docs, SendMessage: "A message can include only XML, JSON, ...").
_REFUSED = {"\ufffe": "\\ufffe", "\uffff": "\\uffff"}


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message as received, and when it is due."""

    message: Message
    due_ms: int


def seal(outgoing: Outgoing, put: Callable[[str, bytes], Reference]) -> str:
    """The SQS body: `{"id", "execution", "due_ms", "message"}`, or `"gen"` and `"ref"` instead of a long message.

    Raises:
        StorageError: S3 refused the message.
    """
    message = outgoing.message
    head = json.dumps({"id": message.id, "execution": message.run.execution_id, "due_ms": outgoing.due_ms})
    raw = wire.encode_message(message)
    if len(raw) > BY_REFERENCE_BYTES:
        tail = json.dumps({"gen": message.run.gen, "ref": str(put(message.run.gen, raw))})[1:]
    else:
        text = raw.decode()
        for refused, escaped in _REFUSED.items():
            text = text.replace(refused, escaped)
        tail = f'"message": {text}}}'
    return f"{head[:-1]}, {tail}"


def open_envelope(body: str, bodies: Bodies) -> Envelope:
    """The message in an SQS body.

    Raises:
        WireError: a newer worker wrote it.
        StorageError: it is none of ours, or its object in S3 is missing or corrupt.
    """
    try:
        fields = cast("object", json.loads(body))
    except ValueError as error:
        raise _foreign(body, f"it is no JSON ({error})") from error
    if not isinstance(fields, dict):
        raise _foreign(body, "it is no object")
    envelope = cast("dict[str, Any]", fields)
    due_ms, gen, reference = envelope.get("due_ms"), envelope.get("gen"), envelope.get("ref")
    if not isinstance(due_ms, int):
        raise _foreign(body, "it has no due_ms")
    if "message" in envelope:
        return Envelope(wire.decode_message(json.dumps(envelope["message"])), due_ms)
    if not isinstance(gen, str) or not isinstance(reference, str):
        raise _foreign(body, "it has neither a message nor a reference to one")
    return Envelope(wire.decode_message(bodies.get(gen, Reference.parse(reference))), due_ms)


def _foreign(body: str, reason: str) -> StorageError:
    return StorageError(
        f"expected a message that durably sent, but {reason}: {body[:200]!r}. Something else writes to this queue; "
        "take away its permission, and delete the message."
    )
