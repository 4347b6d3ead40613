"""Activities whose hearts beat, and what must hold of it: details are handed on, and a cancellation is learnt."""

from __future__ import annotations

import json
from collections.abc import Generator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from durably.api.activity import activity, callback_activity
from durably.api.attempt import AttemptInfo, Callback, attempt_info, heartbeat
from durably.core.errors import ActivityCancelledError
from durably.core.keys import ActivityKey, RunKey
from durably.core.retry import RetryPolicy
from durably.ports.records import ActivityItem
from tests.simulation.activities import answer, outside

if TYPE_CHECKING:
    from tests.simulation.world import World

HEARTBEAT_S = 30
_DUE_MS = 7_500  # a heartbeat this long after the last one is stored
_LIVELY = RetryPolicy(max_attempts=0, maximum_interval=timedelta(seconds=10))
_TIMEOUT = timedelta(seconds=HEARTBEAT_S)


class Hearts:
    """Hears every heartbeat and sees every item that is stored, and compares."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.broken: list[str] = []
        self._said: dict[str, tuple[ActivityKey, int | None]] = {}
        self._stored: dict[ActivityKey, str | None] = {}
        self.last: set[str] = set()  # of attempts that failed
        self._handed: dict[tuple[ActivityKey, int], set[str | None]] = {}

    def saying(self, key: ActivityKey, attempt: int | None) -> dict[str, int]:
        """New details for an attempt, or for whichever is awaited, to give to a heartbeat."""
        details = {"attempt": attempt or 0, "count": len(self._said)}
        self._said[json.dumps(details, separators=(",", ":"))] = key, attempt
        return details

    def stored(self, item: ActivityItem) -> None:
        """An item was written."""
        key, details = item.key, item.details
        before = self._stored.get(key)
        if details != before and item.state != "completed":
            speaker = item.attempt - (item.state == "retrying")
            if details is None or not _may_be(self._said[details], key, speaker):
                self.broken.append(f"{item.state} attempt {item.attempt} of {key} has {details} after {before}")
        self._stored[key] = details
        self._handed.setdefault((key, item.attempt), set()).add(details)

    def began(self, info: AttemptInfo) -> Heard:
        """An attempt begins, with what it was told of the one before."""
        heard = Heard(self, info)
        details = info.heartbeat_details
        text = None if details is None else json.dumps(details, separators=(",", ":"))
        if text not in self._handed.get((heard.key, info.attempt), {None}):
            self.broken.append(f"{info} was not handed what is stored")
        failed = info.last_failure is not None and info.last_failure.matches("OSError")
        if failed and (text is None or (self._said[text][1] == info.attempt - 1 and text not in self.last)):
            self.broken.append(f"{info} lost what the attempt said that failed")
        return heard

    def nobody_waits(self, key: ActivityKey, attempt: int) -> bool:
        """Whether what an attempt does has no effect any more."""
        store = self.world.store
        record, item = store.read_record(key.run.execution_id), store.read_item(key)
        if record is None or record.gen != key.run.gen or record.closed or record.run > key.run.run:
            return True
        ended = ("completed", "closed", "cancelled")
        return item is not None and (item.attempt != attempt or item.state in ended)


def _may_be(said: tuple[ActivityKey, int | None], key: ActivityKey, speaker: int) -> bool:
    """Whether an attempt said it; or somebody who has no token, of the run that it was then or one that repeats it."""
    whose, attempt = said
    if attempt is None:
        return (whose.run.gen, whose.seq) == (key.run.gen, key.seq)
    return said == (key, speaker)


class Heard:
    """One run of an attempt."""

    def __init__(self, hearts: Hearts, info: AttemptInfo) -> None:
        gen, _, seq = info.idempotency_key.split(".")
        heart: Any = info.heart
        run: RunKey = heart._task.run  # the key for services names the run in which the history began
        self.key = ActivityKey(run, int(seq))
        assert run.gen == gen
        self._hearts = hearts
        self._attempt = info.attempt
        self._last_ms: int | None = None
        self.last = ""

    def beat(self) -> None:
        """A heartbeat with details."""
        hearts, world = self._hearts, self._hearts.world
        before_ms, last_ms = world.now_ms, self._last_ms
        useless, faults = hearts.nobody_waits(self.key, self._attempt), world.faults.counts.total()
        self._last_ms = before_ms
        try:
            details = hearts.saying(self.key, self._attempt)
            self.last = json.dumps(details, separators=(",", ":"))
            heartbeat(details)
        except ActivityCancelledError as error:
            if not hearts.nobody_waits(self.key, self._attempt):
                hearts.broken.append(f"attempt {self._attempt} of {self.key} was told {error}")
            raise
        due = last_ms is None or before_ms - last_ms >= _DUE_MS
        if useless and due and faults == world.faults.counts.total():
            hearts.broken.append(f"attempt {self._attempt} of {self.key} did not learn that nobody waits for it")


class Pause:
    """Awaited in an activity, lets so much virtual time pass."""

    def __init__(self, ms: int) -> None:
        self._ms = ms

    def __await__(self) -> Generator[int]:
        yield self._ms


@activity(heartbeat_timeout=_TIMEOUT, retry=_LIVELY)
async def beat(n: int, plan: str) -> int:
    heard = outside().hearts.began(attempt_info())
    first = attempt_info().attempt == 1
    for pause_ms in (1_000, 10_000, 1_000, 20_000):
        heard.beat()
        await Pause(pause_ms)
    if first and plan == "fails":
        heard.beat()
        heard.beat()
        outside().hearts.last.add(heard.last)
        raise OSError("not yet")
    if first and plan in {"silent", "mute"}:
        await Pause(45_000)
        if plan == "silent":
            heard.beat()
    return answer(n)


@activity(heartbeat_timeout=_TIMEOUT, retry=_LIVELY, at_most_once=True)
async def beat_once(n: int, plan: str) -> int:
    heard = outside().hearts.began(attempt_info())
    for _ in range(3):
        heard.beat()
        await Pause(45_000 if plan == "silent" and attempt_info().attempt == 1 else 10_000)
    return answer(n)


@activity(heartbeat_timeout=timedelta(minutes=15), retry=_LIVELY)
async def beat_for_ever(n: int, plan: str) -> int:
    heard = outside().hearts.began(attempt_info())
    pause_ms = 1_000
    try:
        while True:
            heard.beat()
            await Pause(pause_ms)
            pause_ms = min(600_000, 2 * pause_ms)
    except ActivityCancelledError:
        if plan == "stubborn":
            return answer(n)
        raise


@callback_activity(heartbeat_timeout=_TIMEOUT, retry=_LIVELY)
def ask_alive(callback: Callback[int], n: int, plan: str) -> None:
    outside().hearts.began(attempt_info())
    outside().asked(callback, n, plan, attempt_info())


HEARTS = (beat, beat_once, beat_for_ever, ask_alive)
