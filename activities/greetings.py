"""Greetings: two that need nobody, and one that is fetched from Professor Oak's server, at PROFESSOR_OAK_URL."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, ConfigDict, Field

from activities.services import ask_service
from durably import RetryPolicy, activity

PROFESSOR_OAK_URL = "PROFESSOR_OAK_URL"


class Trainer(BaseModel):
    """Who catches Pokemon."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)


class Pokemon(BaseModel):
    """Who is caught."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)


@activity
def hello_trainer(trainer: Trainer) -> str:
    """A greeting for a trainer."""
    return f"Hello {trainer.name}!"


@activity
def hello_pokemon(pokemon: Pokemon) -> str:
    """A greeting for a Pokemon."""
    return f"Hello {pokemon.name}!"


@activity(timeout=timedelta(seconds=10), retry=RetryPolicy(max_attempts=0, maximum_interval=timedelta(seconds=100)))
def hello_professor_oak() -> str:
    """What Professor Oak says, whose server may be down for long: there is no last attempt.

    Raises:
        OSError: the server was not reached or is in trouble.
        NonRetryableError: it knows no such greeting, or it has no address.
    """
    return ask_service(PROFESSOR_OAK_URL, "/hello").decode()
