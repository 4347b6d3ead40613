"""Task tokens signed with HMAC-SHA256. A token is unpadded base64url of a body and its signature.

    version (1 byte) | key id | execution id | gen | run, seq, attempt, expires_at_ms | HMAC (32 bytes)

Strings carry a length before them. The deployment is signed and not sent: a token means nothing elsewhere.
"""

from __future__ import annotations

import hmac
import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping

from durably.core.errors import ConfigurationError, TokenError
from durably.core.keys import ActivityKey, RunKey
from durably.ports.tokens import TokenClaims

_VERSION = 1
_NUMBERS = struct.Struct(">IIIQ")
_MAC_BYTES = 32
_MAX_CHARACTERS = 1024
_MIN_KEY_BYTES = 16
_ALPHABET = re.compile(r"[A-Za-z0-9_-]+")


class HmacTokenSigner:
    """Signs with one key, verifies with each key it knows, so that keys can be rotated.

    Args:
        deployment: name of the deployment; tokens of another one are refused.
        keys: secrets by key id, at least 16 bytes each. Keep a retired key as long as its tokens may arrive.
        current: the id of the key that signs.

    Raises:
        ConfigurationError: no such key, or a key or an id of impossible length.
    """

    def __init__(self, deployment: str, keys: Mapping[str, bytes], current: str) -> None:
        if current not in keys:
            raise ConfigurationError(
                f"the current token key {current!r} is not among the keys {sorted(keys)}; add it to them."
            )
        for key_id, secret in keys.items():
            if not 1 <= len(key_id.encode()) <= 64:
                raise ConfigurationError(f"a token key id takes 1 to 64 bytes, got {key_id!r}; rename it.")
            if len(secret) < _MIN_KEY_BYTES:
                raise ConfigurationError(
                    f"token key {key_id!r} has {len(secret)} bytes, expected at least {_MIN_KEY_BYTES}; "
                    "generate one with os.urandom(32)."
                )
        self._keys = {_packed(key_id): bytes(secret) for key_id, secret in keys.items()}
        self._current = _packed(current)
        self._context = b"durably.task-token" + _packed(deployment)

    def sign(self, claims: TokenClaims) -> str:
        """A token of URL-safe characters, about 130 for a short execution id."""
        run = claims.key.run
        body = b"".join(
            (
                bytes((_VERSION,)),
                self._current,
                _packed(run.execution_id),
                _packed(run.gen),
                _NUMBERS.pack(run.run, claims.key.seq, claims.attempt, claims.expires_at_ms),
            )
        )
        return _base64(body + self._mac(self._keys[self._current], body))

    def verify(self, token: str) -> TokenClaims:
        """The claims of a genuine token, expired or not.

        Raises:
            TokenError: malformed, forged, of another deployment or an unknown key: never says which.
        """
        claims = self._genuine(token)
        if claims is None:
            raise TokenError(
                "expected a task token of this deployment, and this is none: it is incomplete, altered, or "
                "from elsewhere. Send it exactly as the activity received it (callback.token, callback.url)."
            )
        return claims

    def _genuine(self, token: str) -> TokenClaims | None:
        if len(token) > _MAX_CHARACTERS or not _ALPHABET.fullmatch(token):
            return None
        try:
            raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            return None
        if _base64(raw) != token:  # the last character has spare bits: one token, one spelling
            return None
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        key_id = body[1 : 3 + int.from_bytes(body[1:3], "big")]
        secret = self._keys.get(key_id)
        # an unknown key costs the same time as a known one
        expected = self._mac(secret or bytes(_MIN_KEY_BYTES), body)
        if not hmac.compare_digest(mac, expected) or secret is None:
            return None
        return _claims(body, 1 + len(key_id)) if body[0] == _VERSION else None

    def _mac(self, secret: bytes, body: bytes) -> bytes:
        return hmac.digest(secret, self._context + body, "sha256")


def _claims(body: bytes, start: int) -> TokenClaims | None:
    try:
        execution_id, start = _unpacked(body, start)
        gen, start = _unpacked(body, start)
        run, seq, attempt, expires_at_ms = _NUMBERS.unpack(body[start:])
    except (struct.error, UnicodeDecodeError):
        return None
    key = ActivityKey(RunKey(execution_id, gen, run), seq)
    return TokenClaims(key=key, attempt=attempt, expires_at_ms=expires_at_ms)


def _packed(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2, "big") + raw


def _unpacked(body: bytes, start: int) -> tuple[str, int]:
    end = start + 2 + int.from_bytes(body[start : start + 2], "big")
    return body[start + 2 : end].decode(), end


def _base64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
