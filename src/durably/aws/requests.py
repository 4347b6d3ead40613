"""HTTP requests as API Gateway's HTTP APIs hand them over (payload format 2.0), and answers in JSON."""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import re
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.data_classes.common import BaseProxyEvent

_LARGEST_ANSWER = 5_500_000  # Lambda returns at most 6 MB, headers included
_PARAMETER = re.compile(r"\{(\w+)\}")


def routed(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event with a path in which each parameter is one percent-encoded segment.

    API Gateway matches the encoded path and hands `rawPath` over decoded, so an id with a slash in it would be two
    segments there. The route it chose, and the parameters that it cut out, say what was meant; one that takes whatever
    follows (`{proxy+}`) does not.
    """
    template = str(event.get("routeKey", "")).partition(" ")[2]
    parameters = cast("Mapping[str, str]", event.get("pathParameters") or {})
    if not template or "+}" in template or not set(_PARAMETER.findall(template)) <= set(parameters):
        return dict(event)
    path = _PARAMETER.sub(lambda found: quote(parameters[found[1]], safe=""), template)
    stage = cast("Mapping[str, Any]", event.get("requestContext") or {}).get("stage", "$default")
    return {**event, "rawPath": path if stage == "$default" else f"/{stage}{path}"}


def answer(status: int, value: Any) -> Response[str]:
    """An answer whose body is `value` as JSON."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Response(status_code=status, content_type="application/json", body=body)


def answer_large(event: BaseProxyEvent, value: Any) -> Response[str]:
    """An answer of 200 that may be larger than what a Lambda function can return (6 MB): then it is compressed."""
    plain = answer(200, value)
    body = plain.body or ""
    if len(json.dumps(body)) <= _LARGEST_ANSWER:
        return plain
    if "gzip" not in event.headers.get("accept-encoding", ""):
        return answer(406, {"message": "The answer is too large as it is. Ask for it with Accept-Encoding: gzip."})
    if len(gzip.compress(body.encode())) * 4 // 3 > _LARGEST_ANSWER:
        return answer(406, {"message": "The answer is too large, even compressed. Ask for a smaller page."})
    return Response(status_code=200, content_type="application/json", body=body, compress=True)


def refusal_of(event: BaseProxyEvent, *, limit: int) -> Response[str] | None:
    """Why a request's body is not even looked at: it says that it is no JSON, is too large or is not what it says."""
    kind = (event.headers.get("content-type") or "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        return answer(415, {"message": f"Content-Type is {kind}; a body here is application/json."})
    try:
        size = len(body_of(event))
    except (binascii.Error, UnicodeEncodeError) as error:
        return answer(400, {"message": f"The body cannot be decoded: {error}."})
    if size > limit:
        return answer(413, {"message": f"The body has {size} bytes, more than {limit}."})
    return None


def body_of(event: BaseProxyEvent) -> bytes:
    """The request's body as it was sent; API Gateway encodes what is not text."""
    body = event.body or ""
    return base64.b64decode(body, validate=True) if event.is_base64_encoded else body.encode()
