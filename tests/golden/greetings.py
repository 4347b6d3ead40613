"""Paths of the greetings story."""

from __future__ import annotations

from pathlib import Path

from activities.greetings import hello_pokemon, hello_professor_oak, hello_trainer
from durably.testing import Environment
from orchestrators.greetings import Encounter, greet_everyone

ORCHESTRATORS = (greet_everyone,)
EVENT = Path(__file__).parents[2] / "events/greetings.json"


def ok(env: Environment) -> None:
    """The professor's server is down at first."""
    _greeted_by_all_but_the_professor(env)
    refused = [ConnectionRefusedError("connection refused")] * 3
    env.mock(hello_professor_oak).side_effect([*refused, "Hello there!"])
    env.start("greetings-ok", greet_everyone, _encounter()).result()


def waiting(env: Environment) -> None:
    """The professor's server stays down."""
    _greeted_by_all_but_the_professor(env)
    env.mock(hello_professor_oak).raises(ConnectionRefusedError("connection refused"))
    env.start("greetings-waiting", greet_everyone, _encounter())


def _greeted_by_all_but_the_professor(env: Environment) -> None:
    env.mock(hello_trainer, hello_trainer.fn)
    env.mock(hello_pokemon, hello_pokemon.fn)


def _encounter() -> Encounter:
    return Encounter.model_validate_json(EVENT.read_bytes())


PATHS = (ok, waiting)
