"""The services of the Pokemon story, in a process of its own. They remember in a SQLite file, and fail on request.

POST /pokemon {"id": ..., "name": ..., "level": ..., "max_health": ...}    it appears, unless it has
GET  /pokemon/ID                                                           how it is, and who did what to it
POST /status/paralyze, /status/cure, /combat/attack, /combat/restore, /pokeball/throw
     {"pokemon": ID, "trainer": NAME, "key": KEY}     200 as it is now, 503 failure, 409 it has fainted
"""

from __future__ import annotations

import argparse
import signal
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from activities.pokemon_capture import Order, Pokemon, Status, Step, Wild
from demo.console import say
from demo.processes import end_with_parent

DAMAGE = 80
SCHEMA = """
    CREATE TABLE IF NOT EXISTS pokemon (id TEXT PRIMARY KEY, state TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS calls (pokemon TEXT NOT NULL, step TEXT NOT NULL, key TEXT, done INTEGER NOT NULL);
"""


class Seen(BaseModel):
    """A Pokemon, how often each step was carried out, and how often it failed."""

    pokemon: Pokemon
    done: dict[str, int]
    failed: dict[str, int]


class RefusedError(Exception):
    """The answer is not 200; `status` is what it is."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Services:
    """All three. Each request is one transaction.

    Args:
        path: the SQLite file.
        failures: how often a step fails for each Pokemon before it works.
    """

    def __init__(self, path: Path, failures: Mapping[Step, int]) -> None:
        self._path = path
        self._failures = failures
        with closing(sqlite3.connect(path)) as memory:
            memory.executescript(SCHEMA)

    def appear(self, wild: Wild) -> Pokemon:
        """A Pokemon appears, whole and nobody's; one that is there stays as it is."""
        state = Pokemon(**wild.model_dump(), health=wild.max_health, status=Status.HEALTHY)
        with closing(sqlite3.connect(self._path)) as memory, memory:
            memory.execute("INSERT OR IGNORE INTO pokemon VALUES (?, ?)", (wild.id, state.model_dump_json()))
            return _state(memory, wild.id)

    def look(self, id_: str) -> Seen:
        """A Pokemon, and who did what to it."""
        with closing(sqlite3.connect(self._path)) as memory:
            counted = (
                "SELECT step, count(*) FROM calls WHERE pokemon = ? AND done = ? GROUP BY step ORDER BY min(rowid)"
            )
            done, failed = (dict(memory.execute(counted, (id_, done))) for done in (True, False))
            return Seen(pokemon=_state(memory, id_), done=done, failed=failed)

    def carry_out(self, step: Step, order: Order) -> Pokemon:
        """A step, unless it was carried out under the same key before.

        Raises:
            RefusedError: it fails, as it was asked to; or it cannot be done.
        """
        name = step.name.lower()
        with closing(sqlite3.connect(self._path)) as memory, memory:
            memory.execute("BEGIN IMMEDIATE")
            pokemon = _state(memory, order.pokemon)
            known = "SELECT 1 FROM calls WHERE pokemon = ? AND step = ? AND key = ? AND done"
            if order.key and memory.execute(known, (pokemon.id, name, order.key)).fetchone():
                return pokemon
            counted = "SELECT count(*) FROM calls WHERE pokemon = ? AND step = ? AND NOT done"
            ((failed,),) = memory.execute(counted, (pokemon.id, name))
            works = failed >= self._failures.get(step, 0)
            if works:
                pokemon = after(step, order.trainer, pokemon)
                change = "UPDATE pokemon SET state = ? WHERE id = ?"
                memory.execute(change, (pokemon.model_dump_json(), pokemon.id))
            memory.execute("INSERT INTO calls VALUES (?, ?, ?, ?)", (pokemon.id, name, order.key, works))
        if not works:
            raise RefusedError(503, f"{name} failed, as it was asked to")
        return pokemon


def after(step: Step, trainer: str, pokemon: Pokemon) -> Pokemon:
    """A Pokemon as it is after a step.

    Raises:
        RefusedError: the step makes no sense.
    """
    match step:
        case Step.PARALYZE:
            return pokemon.model_copy(update={"status": Status.PARALYZED})
        case Step.CURE:
            return pokemon.model_copy(update={"status": Status.HEALTHY})
        case Step.ATTACK:
            return pokemon.model_copy(update={"health": max(0, pokemon.health - DAMAGE)})
        case Step.RESTORE:
            return pokemon.model_copy(update={"health": pokemon.max_health})
        case Step.THROW:
            if pokemon.health == 0:
                raise RefusedError(409, f"{pokemon.name} has fainted: nobody can capture it")
            if pokemon.trainer not in {None, trainer}:
                raise RefusedError(409, f"{pokemon.name} is {pokemon.trainer}'s")
            return pokemon.model_copy(update={"trainer": trainer})


def _state(memory: sqlite3.Connection, id_: str) -> Pokemon:
    row = memory.execute("SELECT state FROM pokemon WHERE id = ?", (id_,)).fetchone()
    if row is None:
        raise RefusedError(404, f"there is no Pokemon {id_!r}")
    return Pokemon.model_validate_json(row[0])


class Server(HTTPServer):
    """The services behind HTTP."""

    request_queue_size = 32

    def __init__(self, services: Services) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.services = services

    @property
    def url(self) -> str:
        """Base address, without a trailing slash."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Requests in, calls of the services out."""

    server: Server
    timeout = 5

    def do_GET(self) -> None:  # the standard library's name
        """Answer /pokemon/ID."""
        self._handle(b"")

    def do_POST(self) -> None:
        """Answer everything else."""
        self._handle(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _handle(self, body: bytes) -> None:
        try:
            answer = self._answer_of(body)
        except RefusedError as refusal:
            self._answer(refusal.status, str(refusal))
        except ValidationError as error:
            self._answer(400, str(error))
        else:
            self._answer(200, answer.model_dump_json())

    def _answer_of(self, body: bytes) -> BaseModel:
        services = self.server.services
        if self.command == "GET" and self.path.startswith("/pokemon/"):
            return services.look(self.path.removeprefix("/pokemon/"))
        if self.command == "POST" and self.path == "/pokemon":
            return services.appear(Wild.model_validate_json(body))
        if self.command != "POST" or self.path not in list(Step):
            raise RefusedError(404, f"nothing is at {self.command} {self.path}")
        order = Order.model_validate_json(body)
        service, name = self.path.strip("/").split("/")
        try:
            pokemon = services.carry_out(Step(self.path), order)
        except RefusedError as refusal:
            say(service, f"{order.pokemon}: {refusal}")
            raise
        say(service, f"{order.pokemon}: {name}; {pokemon.status}, {pokemon.health} of {pokemon.max_health}")
        return pokemon

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the services say what matters."""

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status == 200 else "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def failure(text: str) -> tuple[Step, int]:
    """STEP=TIMES of a command line.

    Raises:
        ArgumentTypeError: it is not of that form.
    """
    name, _, times = text.partition("=")
    if name.upper() not in Step.__members__ or not times.isdecimal():
        steps = ", ".join(step.name.lower() for step in Step)
        raise argparse.ArgumentTypeError(f"{text!r} is not STEP=TIMES, where STEP is one of {steps}")
    return Step[name.upper()], int(times)


def main() -> None:
    """Serve until told to end. The first line of standard output is the services' URL."""
    parser = argparse.ArgumentParser(description="The services of the Pokemon story.")
    parser.add_argument("--file", type=Path, required=True, help="where they remember")
    parser.add_argument("--fail", type=failure, action="append", default=[], metavar="STEP=TIMES")
    options = parser.parse_args()
    with Server(Services(options.file, dict(options.fail))) as server:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        end_with_parent()
        print(server.url, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
