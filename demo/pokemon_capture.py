"""Capture a Pokemon in four ways, while services fail, and compare what is left: `make story NAME=pokemon_capture`.

Each way captures a Mewtwo of its own; each meets the same failures. By default the ball misses once.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from pydantic import TypeAdapter

from activities.pokemon_capture import (
    SERVICES_URL,
    Order,
    Step,
    ask,
    attack,
    cure,
    paralyze,
    restore,
    throw_pokeball,
)
from activities.services import ask_service
from demo.console import SayingHandler, say
from demo.pokemon_choreography import CAPTURED, DEAD, ENCOUNTERED, Broker, workers
from demo.pokemon_services import Seen, failure
from demo.processes import ROOT, Child, without_proxy
from demo.running import StoryError, parser, run
from durably import ExecutionFailedError, NonRetryableError
from durably.cli.output import print_table
from durably.embedded import Embedded
from orchestrators.pokemon_capture import Encounter, capture_or_heal, capture_pokemon

EVENT = ROOT / "events/pokemon_capture.json"
MOST_TRIES = 3
PATIENCE_S = 60.0
STEPS = [step.name.lower() for step in Step]


def tell(arguments: Sequence[str]) -> int:
    """Tell the story; its exit code."""
    told = parser("pokemon_capture", __doc__)
    told.add_argument("--life", choices=[*LIVES, "all"], default="all", help="which way; default: %(default)s")
    fail = f"how often a step ({', '.join(STEPS)}) fails for each Pokemon before it works; default: throw=1"
    told.add_argument("--fail", type=failure, action="append", metavar="STEP=TIMES", help=fail)
    options = told.parse_args(arguments)
    return run("capture", options.db, lambda db: capture(db, options))


def capture(db: Path, options: argparse.Namespace) -> None:
    """Live each life, and print what became of its Pokemon."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[SayingHandler("runtime")])
    event = Encounter.model_validate_json(EVENT.read_bytes())
    failures = options.fail or [(Step.THROW, 1)]
    flags = [f"--fail={step.name.lower()}={times}" for step, times in failures]
    lives = LIVES if options.life == "all" else {options.life: LIVES[options.life]}
    with Child("demo.pokemon_services", [f"--file={db}-pokemon.db", *flags]) as services:
        os.environ |= without_proxy() | {SERVICES_URL: services.url}
        seen: dict[str, Seen] = {}
        for name, live in lives.items():
            wild = event.pokemon.model_copy(update={"id": f"{event.pokemon.id}-{name}"})
            ask_service(SERVICES_URL, "/pokemon", wild.model_dump_json())
            live(db, Encounter(trainer=event.trainer, pokemon=wild))
            seen[name] = look(wild.id)
    print_table(HEADS, [row(name, each) for name, each in seen.items()])
    print()
    print(TypeAdapter(dict[str, Seen]).dump_json(seen).decode())


def look(pokemon: str) -> Seen:
    """A Pokemon as it is, and what was done to it."""
    return Seen.model_validate_json(ask_service(SERVICES_URL, f"/pokemon/{pokemon}"))


# --- the four lives -----------------------------------------------------------------------------------------------


def sequential(_: Path, encounter: Encounter) -> None:
    """Three calls. Whoever starts the program again starts at the top, and does again what was done."""
    order = Order(pokemon=encounter.pokemon.id, trainer=encounter.trainer)
    for start in range(1, MOST_TRIES + 1):
        if look(encounter.pokemon.id).pokemon.trainer:
            return
        try:
            ask(Step.PARALYZE, order)
            ask(Step.ATTACK, order)
            ask(Step.THROW, order)
        except (OSError, NonRetryableError) as error:
            say("program", f"crashed at start {start}: {error}")


def choreography(db: Path, encounter: Encounter) -> None:
    """Three workers. A message is delivered again until its step is done, or nobody wants it any more."""
    broker = Broker(Path(f"{db}-topics.db"))
    broker.publish(ENCOUNTERED, encounter.trainer, encounter.pokemon.id)
    with ExitStack() as stack:
        for worker in workers(broker):
            stack.enter_context(worker)
        give_up_at = time.monotonic() + PATIENCE_S
        while broker.where(encounter.pokemon.id) not in {CAPTURED, DEAD}:
            if time.monotonic() > give_up_at:
                raise StoryError(f"after {PATIENCE_S:.0f} s the message of {encounter.pokemon.id} is nowhere")
            time.sleep(0.02)


def orchestrator(db: Path, encounter: Encounter) -> None:
    """One function. After a failure it goes on with the step that failed."""
    with Embedded(
        db, orchestrators=[capture_pokemon], activities=[paralyze, attack, throw_pokeball], http=None
    ) as here:
        flow = capture_pokemon.options(id_reuse="use_existing")
        handle = here.client.start(f"capture-{encounter.pokemon.id}", flow, encounter)
        while True:
            try:
                handle.result(timeout=PATIENCE_S)
            except ExecutionFailedError as error:
                if handle.describe().run >= MOST_TRIES:
                    say("operator", f"gives up: {error}")
                    return
                say("operator", f"retries {handle.execution_id}: {error}")
                here.client.retry(handle.execution_id)
            else:
                return


def saga(db: Path, encounter: Encounter) -> None:
    """One function. After a failure it undoes what it did."""
    activities = [paralyze, attack, throw_pokeball, cure, restore]
    with Embedded(db, orchestrators=[capture_or_heal], activities=activities, http=None) as here:
        flow = capture_or_heal.options(id_reuse="use_existing")
        handle = here.client.start(f"capture-{encounter.pokemon.id}", flow, encounter)
        try:
            outcome = handle.result(timeout=PATIENCE_S)
        except ExecutionFailedError as error:
            say("saga", f"could not undo everything: {error}")
        else:
            say("saga", f"{encounter.pokemon.id} is {f'healed: {outcome.problem}' if outcome.problem else 'captured'}")


LIVES: dict[str, Callable[[Path, Encounter], None]] = {
    "sequential": sequential,
    "choreography": choreography,
    "orchestrator": orchestrator,
    "saga": saga,
}

# --- what is left -------------------------------------------------------------------------------------------------

HEADS = ("life", "captured by", "status", "health", *STEPS)


def row(life: str, seen: Seen) -> tuple[str, ...]:
    """A line of the comparison: each step as often as it was carried out, and how often it failed."""
    pokemon = seen.pokemon
    state = (pokemon.trainer or "nobody", pokemon.status, f"{pokemon.health} of {pokemon.max_health}")
    return (life, *state, *(_count(seen.done.get(step, 0), seen.failed.get(step, 0)) for step in STEPS))


def _count(done: int, failed: int) -> str:
    return f"{done}, failed {failed}" if failed else str(done)
