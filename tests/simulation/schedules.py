"""Schedules, and those who pause, trigger, backfill, change and delete them, whatever they are doing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, get_args

from durably.api.schedules import Cron, Every, Once, Overlap, Schedule, When
from durably.client import Client
from durably.core.errors import ClientError, ContendedError, ExecutionExistsError, StorageError
from durably.schedules import Schedules
from tests.simulation.faults import Crash
from tests.simulation.interpret import PROGRAMS, interpret
from tests.simulation.programs import Node

if TYPE_CHECKING:
    from tests.simulation.world import World

NAME = "clock"
_OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)
_LASTS_MS = (200_000, 400_000)
ACTIONS = ("pause", "resume", "trigger", "backfill", "change", "describe", "suspend", "pause", "trigger", "suspend")


class Timekeepers:
    """Whoever has a schedule.

    Attributes:
        created: the schedule as it was created, None in a world without one.
        triggers: ids that executions were triggered under.
    """

    def __init__(self, world: World, clients: list[Client]) -> None:
        self.world = world
        self.clients = clients
        self.created: Schedule | None = None
        self.triggers: set[str] = set()
        self._actions: dict[str, Callable[[Client], object]] = {
            "pause": lambda client: Schedules(client).pause(NAME, "the operator said so"),
            "resume": lambda client: Schedules(client).resume(NAME),
            "trigger": self._trigger,
            "backfill": self._backfill,
            "change": lambda client: Schedules(client).update(NAME, self._drawn()),
            "describe": self._describe,
            "suspend": self._suspend,
            "let go on": lambda client: client.resume(f"schedule:{NAME}"),
            "delete": lambda client: Schedules(client).delete(NAME),
        }

    def will_create(self) -> None:
        """Have a schedule from now on, trouble it for a while, and delete it."""
        rng, at = self.world.rng, self.world.at
        parts = [Node("sleep", 1, rng.choice((1, 5_000, 20_000, 90_000)))]
        if rng.randrange(2):
            parts.append(Node(rng.choice(("flaky", "work", "failing", "ask")), 2, 1, "on time"))
        PROGRAMS[NAME] = Node("seq", 0, 0, "", tuple(parts))
        self.created = self._drawn()
        at(0, self._create)
        lasts_ms = rng.choice(_LASTS_MS)
        for _ in range(rng.choice((0, 1, 2, 4))):
            self._will(rng.choice(ACTIONS), rng.randrange(lasts_ms))
        self._will("delete", lasts_ms)

    def _drawn(self) -> Schedule:
        rng = self.world.rng
        at = datetime.fromtimestamp(self.world.now_ms // 1000, UTC) + timedelta(seconds=rng.choice((-20, 30, 100)))
        whens: tuple[When, ...] = (
            Every(timedelta(seconds=rng.choice((30, 50, 60, 100)))),
            Every(timedelta(seconds=60), timedelta(seconds=7)),
            Cron("* * * * *", "Europe/Berlin"),
            Cron("*/45 * * * * *"),
            Once(at),
        )
        return Schedule(
            rng.choice((*whens[:4], *whens)),
            overlap=rng.choice(_OVERLAPS),
            jitter=timedelta(seconds=rng.choice((0, 0, 15))),
            catch_up=rng.choice((timedelta(days=1), timedelta(days=1), timedelta(seconds=40))),
        )

    def _create(self) -> None:
        assert self.created is not None
        rng = self.world.rng
        try:
            Schedules(rng.choice(self.clients)).create(NAME, self.created, interpret, NAME)
        except ExecutionExistsError:
            pass
        except (Crash, StorageError):
            self.world.sweep_later()
            self.world.at(rng.choice((100, 5_000)), self._create)

    def _will(self, action: str, delay_ms: int) -> None:
        self.world.at(delay_ms, lambda: self._do(action))

    def _do(self, action: str) -> None:
        rng = self.world.rng
        try:
            self._actions[action](rng.choice(self.clients))
        except ClientError:
            pass
        except (Crash, StorageError, ContendedError):
            self._will(action, rng.choice((100, 5_000)))
        else:
            self.world.faults.counts[f"schedule: {action}"] += 1

    def _trigger(self, client: Client) -> None:
        rng = self.world.rng
        request_id = f"by hand {len(self.triggers)}".replace(" ", "-")
        self.triggers.add(f"{NAME}/{request_id}")
        Schedules(client).trigger(NAME, overlap=rng.choice((None, None, *_OVERLAPS)), request_id=request_id)

    def _backfill(self, client: Client) -> None:
        rng = self.world.rng
        until = datetime.fromtimestamp(self.world.now_ms / 1000, UTC) - timedelta(seconds=rng.choice((0, 50)))
        since = until - timedelta(seconds=rng.choice((0, 60, 130)))
        overlap: Overlap = rng.choice(("buffer_all", "buffer_all", "skip", "allow_all"))
        Schedules(client).backfill(NAME, since, until, overlap=overlap)

    def _suspend(self, client: Client) -> None:
        self._will("let go on", self.world.rng.choice((20_000, 100_000)))
        client.suspend(f"schedule:{NAME}")

    def _describe(self, _: Client) -> None:
        state = Schedules(self.world.calm_client()).describe(NAME)
        if len(set(state.next)) != len(state.next) or (state.schedule.paused and state.next):
            self.world.broken.append(f"a schedule said {state}")
