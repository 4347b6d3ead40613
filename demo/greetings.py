"""Greet a trainer, a Pokemon, and a professor whose server is down at first: `make story NAME=greetings`.

His address is reserved and nobody listens there, so the activity is refused. After a few refusals the server starts, in
a process of its own, and the next attempt gets through.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

from activities.greetings import PROFESSOR_OAK_URL, hello_pokemon, hello_professor_oak, hello_trainer
from demo.console import SayingHandler, say
from demo.processes import ROOT, Child, without_proxy
from demo.running import StoryError, parser, run
from durably import Client
from durably.embedded import Embedded
from orchestrators.greetings import Encounter, Greetings, greet_everyone

EVENT = ROOT / "events/greetings.json"
EXECUTION = "greetings-0001"
REFUSALS = 2  # before the server starts
PATIENCE_S = 60.0


def tell(arguments: Sequence[str]) -> int:
    """Tell the story; its exit code."""
    options = parser("greetings", __doc__).parse_args(arguments)
    return run("greetings", options.db, greet)


def greet(db: Path) -> None:
    """Run the orchestrator, start the server late, print what was said."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[SayingHandler("runtime")])
    encounter = Encounter.model_validate_json(EVENT.read_bytes())
    encounter.professor_retry_interval = timedelta(milliseconds=200)  # a fifth of the story's
    with ExitStack() as stack:
        reserved = stack.enter_context(socket.socket())
        reserved.bind(("127.0.0.1", 0))  # and not listening: whoever connects is refused
        os.environ |= without_proxy() | {PROFESSOR_OAK_URL: f"http://127.0.0.1:{reserved.getsockname()[1]}"}
        runtime = stack.enter_context(
            Embedded(
                db,
                orchestrators=[greet_everyone],
                activities=[hello_trainer, hello_pokemon, hello_professor_oak],
                http=None,
            )
        )
        handle = runtime.client.start(EXECUTION, greet_everyone.options(id_reuse="use_existing"), encounter)
        if was_refused(runtime.client):
            oak = Child("demo.professor_oak", [f"--socket={reserved.fileno()}"], inherited=[reserved.fileno()])
            stack.enter_context(oak)
            say("oak", f"his server is up at {oak.url} (pid {oak.pid})")
        greetings: Greetings = handle.result(timeout=PATIENCE_S)
    print(greetings.model_dump_json())


def was_refused(client: Client) -> bool:
    """Wait until the activity met a server that is down often enough; False if the execution has ended already.

    Raises:
        StoryError: that does not happen.
    """
    give_up_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_at:
        described = client.describe(EXECUTION)
        if described.status not in {"running", "stalled"}:
            return False
        if any(waiting.attempt > REFUSALS for waiting in described.activities):
            return True
        time.sleep(0.02)
    raise StoryError(f"after {PATIENCE_S:.0f} s the professor was not yet asked {REFUSALS} times in vain")
