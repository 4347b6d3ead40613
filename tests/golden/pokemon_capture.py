"""Paths of the Pokemon story: those of the two orchestrators."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from activities.pokemon_capture import Pokemon, Status, attack, cure, paralyze, restore, throw_pokeball
from durably import ExecutionFailedError, NonRetryableError
from durably.testing import Environment
from orchestrators.pokemon_capture import Encounter, capture_or_heal, capture_pokemon

ORCHESTRATORS = (capture_pokemon, capture_or_heal)
EVENT = Path(__file__).parents[2] / "events/pokemon_capture.json"
ENCOUNTER = Encounter.model_validate_json(EVENT.read_bytes())
WILD = ENCOUNTER.pokemon
HEALTHY = Pokemon(**WILD.model_dump(), health=WILD.max_health, status=Status.HEALTHY)
PARALYZED = HEALTHY.model_copy(update={"status": Status.PARALYZED})
WEAKENED = PARALYZED.model_copy(update={"health": 150})
CAPTURED = WEAKENED.model_copy(update={"trainer": ENCOUNTER.trainer})


def ok(env: Environment) -> None:
    """Captured at the first throw."""
    _steps(env)
    env.mock(throw_pokeball).returns(CAPTURED)
    env.start("capture-ok", capture_pokemon, ENCOUNTER).result()


def retried(env: Environment) -> None:
    """The throw fails, and the execution is retried from there."""
    _steps(env)
    env.mock(throw_pokeball).side_effect([NonRetryableError("the ball is broken"), CAPTURED])
    handle = env.start("capture-retried", capture_pokemon, ENCOUNTER)
    with suppress(ExecutionFailedError):
        handle.result()
    env.client.retry("capture-retried", "another ball")
    handle.result()


def healed(env: Environment) -> None:
    """The throw fails, and what was done is undone, the last first; one of the undoings at its second attempt."""
    _steps(env)
    env.mock(throw_pokeball).raises(NonRetryableError("the ball is broken"))
    env.mock(restore).side_effect([ConnectionError("busy"), PARALYZED])
    env.mock(cure).returns(HEALTHY)
    env.start("capture-healed", capture_or_heal, ENCOUNTER).result()


def healing(env: Environment) -> None:
    """In the middle of undoing."""
    _steps(env)
    env.mock(throw_pokeball).raises(NonRetryableError("the ball is broken"))
    env.mock(restore).raises(ConnectionError("busy"))
    env.start("capture-healing", capture_or_heal, ENCOUNTER)


def _steps(env: Environment) -> None:
    env.mock(paralyze).returns(PARALYZED)
    env.mock(attack).returns(WEAKENED)


PATHS = (ok, retried, healed, healing)
