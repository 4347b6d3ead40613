"""Greetings: a trainer, a Pokemon, and a professor whose server may be down."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, ConfigDict

from activities.greetings import Pokemon, Trainer, hello_pokemon, hello_professor_oak, hello_trainer
from durably import Context, RetryPolicy, orchestrator


class Encounter(BaseModel):
    """Who meets, and how soon the professor is asked again."""

    model_config = ConfigDict(extra="forbid")

    trainer: Trainer
    pokemon: Pokemon
    professor_retry_interval: timedelta = timedelta(seconds=1)


class Greetings(BaseModel):
    """What was said, in the order in which it was said."""

    trainer: str
    pokemon: str
    professor: str


@orchestrator
async def greet_everyone(ctx: Context, encounter: Encounter) -> Greetings:
    """One greeting after another. The last one takes as long as the professor's server is down."""
    trainer = await hello_trainer(encounter.trainer)
    pokemon = await hello_pokemon(encounter.pokemon)
    ctx.logger.info("%s %s", trainer, pokemon)
    interval = encounter.professor_retry_interval
    patiently = RetryPolicy(max_attempts=0, initial_interval=interval, maximum_interval=100 * interval)
    professor = await hello_professor_oak.options(retry=patiently)()
    return Greetings(trainer=trainer, pokemon=pokemon, professor=professor)
