"""Task tokens whose keys live in Secrets Manager, as one JSON object of keys by id, and the current key's id.

    {"current": "k2", "k1": "<random text>", "k2": "<random text>"}

To rotate, add a key and make it current; delete the old one when its last token has expired.
"""

from __future__ import annotations

import json
from threading import Lock
from typing import Any, cast

from durably.adapters.aws.clients import Clients
from durably.adapters.aws.faults import aws_errors, storage_error
from durably.adapters.aws.settings import AwsSettings
from durably.adapters.tokens import HmacTokenSigner
from durably.core.errors import ConfigurationError, TokenError
from durably.ports.clock import Clock
from durably.ports.tokens import TokenClaims

_FRESH_MS = 300_000  # how long a process signs with the keys that it knows
_LOOK_AGAIN_MS = 30_000  # how often a token that nobody knows may cause a look for new keys


class SecretTokenSigner:
    """Signs and verifies with the deployment's keys, read once and then kept for minutes. Implements `TokenSigner`.

    A token with a key id that is unknown here may be newer than what is known: then the secret is read again, at
    most every 30 s, so that forged tokens cost nothing.
    """

    def __init__(self, settings: AwsSettings, clients: Clients, clock: Clock) -> None:
        self._settings = settings
        self._clients = clients
        self._clock = clock
        self._lock = Lock()
        self._signer: HmacTokenSigner | None = None
        self._read_at_ms = 0

    def sign(self, claims: TokenClaims) -> str:
        """A token, signed with the current key."""
        return self._known(_FRESH_MS).sign(claims)

    def verify(self, token: str) -> TokenClaims:
        """The claims of a genuine token, expired or not.

        Raises:
            TokenError: malformed, forged, of another deployment, or signed with an unknown key.
        """
        try:
            return self._known(_FRESH_MS).verify(token)
        except TokenError:
            before = self._signer
            signer = self._known(_LOOK_AGAIN_MS)
            if signer is before:
                raise
            return signer.verify(token)

    def _known(self, fresh_ms: int) -> HmacTokenSigner:
        """The keys, not older than `fresh_ms`; older ones only where the secret cannot be read."""
        with self._lock:
            now_ms = self._clock.now_ms()
            if self._signer is not None and now_ms - self._read_at_ms < fresh_ms:
                return self._signer
            try:
                self._signer = self._read()
            except aws_errors() as error:
                if self._signer is None:
                    raise storage_error("read the token keys", error) from error
            self._read_at_ms = now_ms
            return self._signer

    def _read(self) -> HmacTokenSigner:
        answer = self._clients.secretsmanager.get_secret_value(SecretId=self._settings.token_secret)
        try:
            keys = cast("object", json.loads(answer.get("SecretString", "")))
        except ValueError:
            keys = None
        if not isinstance(keys, dict) or not all(isinstance(key, str) for key in cast("dict[str, Any]", keys).values()):
            raise ConfigurationError(
                'The token secret should be JSON like {"current": "k1", "k1": "<32 random characters>"}, and is not. '
                "Put it right in Secrets Manager; nothing else has to be deployed."
            )
        found = cast("dict[str, str]", keys)
        current = found.pop("current", "")
        by_id = {key_id: key.encode() for key_id, key in found.items()}
        return HmacTokenSigner(self._settings.deployment, by_id, current)
