"""Capture a Pokemon: once so that a failure can be retried where it happened, once so that it leaves no harm behind."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from activities.pokemon_capture import Pokemon, Wild, attack, cure, paralyze, restore, throw_pokeball
from durably import ActivityError, Context, orchestrator


class Encounter(BaseModel):
    """Who meets."""

    model_config = ConfigDict(extra="forbid")

    trainer: str = Field(min_length=1)
    pokemon: Wild


class Outcome(BaseModel):
    """A Pokemon captured, or a problem, and the Pokemon as it was before."""

    captured: Pokemon | None = None
    problem: str | None = None


@orchestrator
async def capture_pokemon(ctx: Context, encounter: Encounter) -> Pokemon:
    """Three steps. Where one fails the execution fails, and `client.retry` goes on with that one."""
    trainer, pokemon = encounter.trainer, encounter.pokemon.id
    await paralyze(trainer, pokemon)
    weakened = await attack(trainer, pokemon)
    ctx.logger.info("%s has a health of %d left", pokemon, weakened.health)
    return await throw_pokeball(trainer, pokemon)


@orchestrator
async def capture_or_heal(ctx: Context, encounter: Encounter) -> Outcome:
    """The same three steps. Where one fails, those before it are undone, the last one first."""
    trainer, pokemon = encounter.trainer, encounter.pokemon.id
    try:
        async with ctx.saga() as saga:
            saga.compensate(cure, trainer, pokemon)
            await paralyze(trainer, pokemon)
            saga.compensate(restore, trainer, pokemon)
            await attack(trainer, pokemon)
            return Outcome(captured=await throw_pokeball(trainer, pokemon))
    except ActivityError as error:
        return Outcome(problem=error.failure.message)
