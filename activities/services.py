"""How activities reach services: over HTTP, at addresses that environment variables hold."""

from __future__ import annotations

import os
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from durably import NonRetryableError


def ask_service(variable: str, path: str, body: str | None = None) -> bytes:
    """GET `path`, or POST `body` to it, at the address in an environment variable, and return what came back.

    Raises:
        OSError: not reached, or answered with 5xx: worth another attempt.
        NonRetryableError: answered with 4xx, and would again; or there is no address.
    """
    address = os.environ.get(variable)
    if not address:
        raise NonRetryableError(
            f"The environment variable {variable} must hold the address of the service that is asked for {path}, "
            "and is not set. Set it for the process that runs the activities: http://HOST:PORT."
        )
    data = None if body is None else body.encode()
    request = Request(address + path, data=data, headers={"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=5) as response:
            answer: bytes = response.read()
            return answer
    except HTTPError as refusal:
        with refusal:
            said = f"{request.get_method()} {path}: {refusal.code} {refusal.read().decode(errors='replace')}"
        if refusal.code >= 500:
            raise ConnectionError(said) from None
        raise NonRetryableError(said) from None
