"""Task tokens: genuine ones verify, everything else is refused in the same words (promise P7)."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from durably.adapters.tokens import HmacTokenSigner
from durably.core.errors import ConfigurationError, TokenError
from durably.core.keys import ActivityKey, RunKey
from durably.ports.tokens import TokenClaims

KEYS = {"k1": b"1" * 32, "k2": b"2" * 32}
SIGNER = HmacTokenSigner("prod", KEYS, "k2")
GEN = "01HF7YAT00AAAAAAAAAAAAAAAA"
CLAIMS = TokenClaims(key=ActivityKey(RunKey("packet-42", GEN, 1), 3), attempt=2, expires_at_ms=1_700_000_000_000)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

claims = st.builds(
    TokenClaims,
    key=st.builds(
        ActivityKey,
        st.builds(
            RunKey,
            st.text("AZaz09._:/@=+-", min_size=1, max_size=256),
            st.just(GEN),
            st.integers(1, 2**31),
        ),
        st.integers(0, 2**31),
    ),
    attempt=st.integers(1, 2**31),
    expires_at_ms=st.integers(0, 2**50),
)


def _refused(token: str, signer: HmacTokenSigner = SIGNER) -> str:
    with pytest.raises(TokenError) as caught:
        signer.verify(token)
    return str(caught.value)


@given(claims)
def test_a_genuine_token_gives_back_its_claims(given_claims: TokenClaims) -> None:
    token = SIGNER.sign(given_claims)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    assert SIGNER.verify(token) == given_claims
    assert SIGNER.sign(given_claims) == token


def test_a_token_is_short() -> None:
    assert len(SIGNER.sign(CLAIMS)) <= 150


def test_every_altered_character_is_noticed() -> None:
    token = SIGNER.sign(CLAIMS)
    for position, character in enumerate(token):
        for other in ALPHABET:
            if other != character:
                _refused(token[:position] + other + token[position + 1 :])


@pytest.mark.parametrize("length", range(20))
def test_the_spare_bits_of_the_last_character_are_not_free(length: int) -> None:
    key = ActivityKey(RunKey("x" * (length + 1), GEN, 1), 1)
    token = SIGNER.sign(TokenClaims(key=key, attempt=1, expires_at_ms=1))
    for other in ALPHABET:
        if other != token[-1]:
            _refused(token[:-1] + other)


@given(st.text() | st.text(ALPHABET, max_size=300) | st.binary().map(lambda raw: urlsafe_b64encode(raw).decode()))
@example("")
@example("=")
@example("A" * 100_000)
@example("\ud800")
@example("٣" * 128)
def test_arbitrary_text_is_refused_and_nothing_else_happens(text: str) -> None:
    _refused(text)


def test_every_mutilation_is_refused_in_the_same_words() -> None:
    token = SIGNER.sign(CLAIMS)
    other_deployment = HmacTokenSigner("test", KEYS, "k2").sign(CLAIMS)
    other_key = HmacTokenSigner("prod", {"k2": b"3" * 32}, "k2").sign(CLAIMS)
    unknown_key = HmacTokenSigner("prod", {"k9": b"9" * 32}, "k9").sign(CLAIMS)
    wrong = [token[:-1], token + "A", token + "=", token + "\n", " " + token, other_deployment, other_key, unknown_key]
    assert len({_refused(text) for text in wrong}) == 1


def test_deployments_whose_names_join_with_the_body_alike_differ() -> None:
    assert "elsewhere" in _refused(HmacTokenSigner("pro", KEYS, "k2").sign(CLAIMS))
    assert "elsewhere" in _refused(HmacTokenSigner("prod\x01", KEYS, "k2").sign(CLAIMS))


def test_tokens_of_a_retired_key_hold_as_long_as_the_key_is_kept() -> None:
    old = HmacTokenSigner("prod", {"k1": KEYS["k1"]}, "k1").sign(CLAIMS)
    assert SIGNER.verify(old) == CLAIMS
    _refused(old, HmacTokenSigner("prod", {"k2": KEYS["k2"]}, "k2"))


@pytest.mark.parametrize(
    ("keys", "current"),
    [
        ({}, "k1"),
        ({"k1": b"1" * 32}, "k2"),
        ({"k1": b"short"}, "k1"),
        ({"": b"1" * 32}, ""),
        ({"k" * 65: b"1" * 32}, "k" * 65),
    ],
)
def test_keys_that_cannot_work_are_refused(keys: dict[str, bytes], current: str) -> None:
    with pytest.raises(ConfigurationError, match="key"):
        HmacTokenSigner("prod", keys, current)
