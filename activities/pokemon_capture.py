"""What capturing a Pokemon needs: three services, for its status, its health and the ball, at POKEMON_SERVICES_URL."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from activities.services import ask_service
from durably import RetryPolicy, activity, attempt_info

SERVICES_URL = "POKEMON_SERVICES_URL"
ONCE = RetryPolicy(max_attempts=1)  # so that the story shows what becomes of a failure
PATIENTLY = RetryPolicy(max_attempts=5, initial_interval=timedelta(milliseconds=100))


class Wild(BaseModel):
    """A Pokemon that nobody has met."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    level: int = Field(ge=1)
    max_health: int = Field(ge=1)


class Status(StrEnum):
    """What the status service knows of a Pokemon."""

    HEALTHY = "HEALTHY"
    PARALYZED = "PARALYZED"


class Pokemon(Wild):
    """A Pokemon as it is now; nobody's while it has no trainer."""

    health: int
    status: Status
    trainer: str | None = None


class Step(StrEnum):
    """What the services do, and where."""

    PARALYZE = "/status/paralyze"
    ATTACK = "/combat/attack"
    THROW = "/pokeball/throw"
    CURE = "/status/cure"
    RESTORE = "/combat/restore"


class Order(BaseModel):
    """What a service is asked; the same `key` again is the same order, and carried out once."""

    model_config = ConfigDict(extra="forbid")

    pokemon: str
    trainer: str
    key: str | None = None


def ask(step: Step, order: Order) -> Pokemon:
    """Ask a service, and return the Pokemon as it is afterwards.

    Raises:
        OSError: the service was not reached or is in trouble.
        NonRetryableError: it refuses, for good.
    """
    return Pokemon.model_validate_json(ask_service(SERVICES_URL, step.value, order.model_dump_json()))


@activity(timeout=timedelta(seconds=10), retry=ONCE)
def paralyze(trainer: str, pokemon: str) -> Pokemon:
    """Let it not get away."""
    return _ask_once(Step.PARALYZE, trainer, pokemon)


@activity(timeout=timedelta(seconds=10), retry=ONCE)
def attack(trainer: str, pokemon: str) -> Pokemon:
    """Weaken it, each time a little more."""
    return _ask_once(Step.ATTACK, trainer, pokemon)


@activity(timeout=timedelta(seconds=10), retry=ONCE)
def throw_pokeball(trainer: str, pokemon: str) -> Pokemon:
    """Capture it, unless it has fainted."""
    return _ask_once(Step.THROW, trainer, pokemon)


@activity(timeout=timedelta(seconds=10), retry=PATIENTLY)
def cure(trainer: str, pokemon: str) -> Pokemon:
    """Undo `paralyze`, if there is anything to undo."""
    return _ask_once(Step.CURE, trainer, pokemon)


@activity(timeout=timedelta(seconds=10), retry=PATIENTLY)
def restore(trainer: str, pokemon: str) -> Pokemon:
    """Undo `attack`, if there is anything to undo."""
    return _ask_once(Step.RESTORE, trainer, pokemon)


def _ask_once(step: Step, trainer: str, pokemon: str) -> Pokemon:
    return ask(step, Order(pokemon=pokemon, trainer=trainer, key=attempt_info().idempotency_key))
