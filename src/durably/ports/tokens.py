"""Task tokens: the signed string that identifies one attempt of one callback activity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from durably.core.keys import ActivityKey


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClaims:
    """What a token vouches for."""

    key: ActivityKey
    attempt: int
    expires_at_ms: int


class TokenSigner(Protocol):
    """Makes and checks task tokens. The same claims always give the same token."""

    def sign(self, claims: TokenClaims) -> str:
        """A token of URL-safe characters."""
        ...

    def verify(self, token: str) -> TokenClaims:
        """The claims of a genuine token, expired or not.

        Raises:
            TokenError: malformed, forged, of another deployment, or signed with an unknown key.
        """
        ...
