"""The greetings story piece by piece: the orchestrator by hand, the professor's activity against real sockets."""

from __future__ import annotations

import json
import os
import socket
from datetime import timedelta
from pathlib import Path

import pytest

from activities.greetings import (
    PROFESSOR_OAK_URL,
    Pokemon,
    Trainer,
    hello_pokemon,
    hello_professor_oak,
    hello_trainer,
)
from demo.processes import Child, without_proxy
from demo.professor_oak import GREETING
from durably import NonRetryableError
from orchestrators.greetings import Encounter, Greetings, greet_everyone
from tests.unit.stories.driving import drive

EVENT = Path(__file__).parents[3] / "events/greetings.json"
SACHA, PIKACHU = Trainer(name="Sacha"), Pokemon(name="Pikachu")


def test_one_is_greeted_after_the_other_and_the_professor_without_a_last_attempt() -> None:
    greetings, asked, options = drive(
        greet_everyone,
        Encounter(trainer=SACHA, pokemon=PIKACHU, professor_retry_interval=timedelta(seconds=3)),
        {hello_trainer: "Hi T", hello_pokemon: "Hi P", hello_professor_oak: "Hi O"},
    )
    assert greetings == Greetings(trainer="Hi T", pokemon="Hi P", professor="Hi O")
    assert asked == [("hello_trainer", [SACHA]), ("hello_pokemon", [PIKACHU]), ("hello_professor_oak", [])]
    retry = options[-1].retry
    assert retry is not None
    assert (retry.max_attempts, retry.initial_interval) == (0, timedelta(seconds=3))


def test_greetings_name_whom_they_greet() -> None:
    assert hello_trainer.fn(SACHA) == "Hello Sacha!"
    assert hello_pokemon.fn(PIKACHU) == "Hello Pikachu!"


def test_the_event_is_an_encounter_with_the_patience_of_the_story() -> None:
    assert Encounter.model_validate_json(EVENT.read_bytes()) == Encounter(trainer=SACHA, pokemon=PIKACHU)
    assert set(json.loads(EVENT.read_text())) == set(Encounter.model_fields)


def test_a_server_that_is_down_is_worth_another_attempt_and_greets_once_it_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in without_proxy().items():
        monkeypatch.setenv(name, value)
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        monkeypatch.setenv(PROFESSOR_OAK_URL, f"http://127.0.0.1:{reserved.getsockname()[1]}")
        with pytest.raises(OSError, match="refused"):
            hello_professor_oak.fn()

        fd = reserved.fileno()
        with Child("demo.professor_oak", [f"--socket={fd}"], inherited=[fd]) as oak:
            assert oak.url == os.environ[PROFESSOR_OAK_URL]
            assert hello_professor_oak.fn() == GREETING
            monkeypatch.setenv(PROFESSOR_OAK_URL, f"{oak.url}/elsewhere")
            with pytest.raises(NonRetryableError, match="404 nothing is at /elsewhere/hello"):
                hello_professor_oak.fn()


def test_without_an_address_the_activity_says_which_variable_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROFESSOR_OAK_URL, raising=False)
    with pytest.raises(NonRetryableError, match=PROFESSOR_OAK_URL):
        hello_professor_oak.fn()
