"""Topics on a SQLite file, and workers that each take from one and publish to the next: nobody knows the whole."""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from activities.pokemon_capture import Order, Step, ask
from demo.console import say
from durably import NonRetryableError

LEASE_S = 6.0  # a request takes 5 at most
PAUSE_S = 0.1  # before a message is delivered again
POLL_S = 0.02
MOST_DELIVERIES = 3
ENCOUNTERED, PARALYZED, WEAKENED, CAPTURED, DEAD = "encountered", "paralyzed", "weakened", "captured", "dead letters"
SCHEMA = """
    CREATE TABLE IF NOT EXISTS messages (
        id TEXT PRIMARY KEY, topic TEXT NOT NULL, trainer TEXT NOT NULL, pokemon TEXT NOT NULL,
        visible_at REAL NOT NULL, deliveries INTEGER NOT NULL DEFAULT 0
    )
"""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as a worker got it, for the how manieth time."""

    id: str
    trainer: str
    pokemon: str
    deliveries: int


class Broker:
    """Topics that keep a message until somebody has finished with it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._transaction() as topics:
            topics.execute(SCHEMA)

    def publish(self, topic: str, trainer: str, pokemon: str) -> None:
        """Put a message about a Pokemon into a topic, unless there is any about it."""
        with self._transaction() as topics:
            if topics.execute("SELECT 1 FROM messages WHERE pokemon = ?", (pokemon,)).fetchone() is None:
                _put(topics, topic, trainer, pokemon)

    def receive(self, topic: str) -> Message | None:
        """The oldest message of a topic, which nobody else gets while its lease lasts."""
        now = time.time()
        with self._transaction() as topics:
            row = topics.execute(
                "UPDATE messages SET visible_at = ?, deliveries = deliveries + 1 WHERE rowid = ("
                "SELECT rowid FROM messages WHERE topic = ? AND visible_at <= ? ORDER BY rowid LIMIT 1"
                ") RETURNING id, trainer, pokemon, deliveries",
                (now + LEASE_S, topic, now),
            ).fetchone()
        return None if row is None else Message(*row)

    def finish(self, message: Message, topic: str) -> None:
        """Take a message out of its topic and put the next one into another, both or neither."""
        with self._transaction() as topics:
            if topics.execute("DELETE FROM messages WHERE id = ?", (message.id,)).rowcount:
                _put(topics, topic, message.trainer, message.pokemon)

    def give_back(self, message: Message) -> None:
        """Have a message delivered again a little later."""
        with self._transaction() as topics:
            topics.execute("UPDATE messages SET visible_at = ? WHERE id = ?", (time.time() + PAUSE_S, message.id))

    def bury(self, message: Message) -> None:
        """Put a message where nobody takes it from."""
        with self._transaction() as topics:
            topics.execute("UPDATE messages SET topic = ? WHERE id = ?", (DEAD, message.id))

    def where(self, pokemon: str) -> str | None:
        """The topic that a Pokemon's message is in."""
        with self._transaction() as topics:
            row = topics.execute("SELECT topic FROM messages WHERE pokemon = ?", (pokemon,)).fetchone()
        return None if row is None else str(row[0])

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=10)) as topics, topics:
            topics.execute("BEGIN IMMEDIATE")
            yield topics


def _put(topics: sqlite3.Connection, topic: str, trainer: str, pokemon: str) -> None:
    insert = "INSERT INTO messages (id, topic, trainer, pokemon, visible_at) VALUES (?, ?, ?, ?, ?)"
    topics.execute(insert, (uuid.uuid4().hex, topic, trainer, pokemon, time.time()))


class Worker:
    """A thread that takes a message of one topic at a time, does its step, and publishes to the next topic."""

    def __init__(
        self, broker: Broker, taken: str, step: Step, published: str, *, ask: Callable[[Step, Order], object] = ask
    ) -> None:
        self._broker = broker
        self._taken, self._step, self._published = taken, step, published
        self._ask = ask
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{step.name.lower()}-worker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            if not self.work():
                self._stopping.wait(POLL_S)

    def work(self) -> bool:
        """Handle a message, if there is one."""
        message = self._broker.receive(self._taken)
        if message is None:
            return False
        # the message's id is the key: delivered again after a crash, it is the same order
        order = Order(pokemon=message.pokemon, trainer=message.trainer, key=message.id)
        try:
            self._ask(self._step, order)
        except (OSError, NonRetryableError) as error:
            if isinstance(error, NonRetryableError) or message.deliveries >= MOST_DELIVERIES:
                say("worker", f"{message.pokemon}: gives up at delivery {message.deliveries}, into {DEAD!r}")
                self._broker.bury(message)
            else:
                self._broker.give_back(message)
        else:
            self._broker.finish(message, self._published)
        return True


def workers(broker: Broker) -> list[Worker]:
    """One for each service."""
    return [
        Worker(broker, ENCOUNTERED, Step.PARALYZE, PARALYZED),
        Worker(broker, PARALYZED, Step.ATTACK, WEAKENED),
        Worker(broker, WEAKENED, Step.THROW, CAPTURED),
    ]
