"""Token keys from Secrets Manager: read once, rotated by key id, never for a forger's sake."""

from __future__ import annotations

import dataclasses
import json

import pytest

from durably.adapters.aws.secrets import SecretTokenSigner
from durably.core.errors import ConfigurationError, StorageError, TokenError
from durably.core.keys import ActivityKey
from durably.ports.tokens import TokenClaims
from tests.contract.aws import Cloud
from tests.contract.builders import RUN

CLAIMS = TokenClaims(key=ActivityKey(RUN, 3), attempt=2, expires_at_ms=1_800_000_000_000)
READ = "secrets-manager.GetSecretValue"


def signer(made: Cloud) -> SecretTokenSigner:
    return SecretTokenSigner(made.settings, made.clients, made.clock)


def write(made: Cloud, text: str) -> None:
    made.clients.secretsmanager.put_secret_value(SecretId=made.settings.token_secret, SecretString=text)


def rotate(made: Cloud, **keys: str) -> None:
    write(made, json.dumps(keys))


def test_the_secret_is_read_once_for_many_tokens(made: Cloud) -> None:
    mine = signer(made)
    for _ in range(5):
        assert mine.verify(mine.sign(CLAIMS)) == CLAIMS
    assert made.meter.bill.requests == {READ: 1}


def test_tokens_of_the_old_key_outlive_its_rotation(made: Cloud) -> None:
    mine = signer(made)
    old = mine.sign(CLAIMS)
    rotate(made, current="k2", k1="1" * 32, k2="2" * 32)
    made.clock.advance(300_000)
    new = mine.sign(CLAIMS)
    assert new != old
    assert mine.verify(old) == mine.verify(new) == CLAIMS


def test_a_token_of_a_key_that_is_newer_than_ours_makes_us_look(made: Cloud) -> None:
    mine = signer(made)
    mine.sign(CLAIMS)
    rotate(made, current="k2", k1="1" * 32, k2="2" * 32)
    new = signer(made).sign(CLAIMS)
    made.clock.advance(30_000)
    assert mine.verify(new) == CLAIMS


def test_a_removed_key_verifies_nothing_more(made: Cloud) -> None:
    mine = signer(made)
    old = mine.sign(CLAIMS)
    rotate(made, current="k2", k2="2" * 32)
    made.clock.advance(300_000)
    with pytest.raises(TokenError):
        mine.verify(old)


def test_forged_tokens_make_us_look_at_most_every_thirty_seconds(made: Cloud) -> None:
    mine = signer(made)
    forged = mine.sign(CLAIMS)[:-4] + "AAAA"
    for _ in range(20):
        made.clock.advance(3_000)
        with pytest.raises(TokenError):
            mine.verify(forged)
    assert made.meter.bill.requests[READ] == 3


def test_a_token_of_another_deployment_is_refused(made: Cloud) -> None:
    other = SecretTokenSigner(dataclasses.replace(made.settings, deployment="other"), made.clients, made.clock)
    with pytest.raises(TokenError):
        signer(made).verify(other.sign(CLAIMS))


def test_known_keys_serve_on_while_the_secret_cannot_be_read(made: Cloud) -> None:
    mine = signer(made)
    token = mine.sign(CLAIMS)
    made.faults.plan("GetSecretValue", "request lost", 3)
    made.clock.advance(300_000)
    assert mine.verify(token) == CLAIMS


def test_without_any_key_nothing_is_signed(made: Cloud) -> None:
    made.faults.plan("GetSecretValue", "refused", code="AccessDeniedException")
    with pytest.raises(StorageError, match="token keys"):
        signer(made).sign(CLAIMS)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"current": 1}', '{"current": "k1"}', "{}", '{"current": "k1", "k1": "short"}']
)
def test_a_secret_that_holds_no_keys_is_refused(made: Cloud, text: str) -> None:
    write(made, text or " ")
    with pytest.raises(ConfigurationError):
        signer(made).sign(CLAIMS)
