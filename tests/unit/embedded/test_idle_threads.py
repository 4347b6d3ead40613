"""How many threads run activities: an idle one that has just taken a task is not idle any more."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import Any

import pytest

from durably import Context, activity, orchestrator
from durably.embedded import workers
from tests.unit.embedded.conftest import Run
from tests.unit.embedded.waiting import eventually

SOON_S = 10.0


class PausingQueue:
    """A queue from which a task is taken, but not handed over before `hand_over` is set."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self.hand_over = threading.Event()
        self.hand_over.set()
        self.taken = self.submitted = 0

    def put(self, item: Any) -> None:
        self.submitted += item is not None
        self._queue.put(item)

    def get(self) -> Any:
        item = self._queue.get()
        self.taken += item is not None
        self.hand_over.wait(SOON_S)
        return item

    def qsize(self) -> int:
        return self._queue.qsize()


def test_a_task_does_not_wait_for_a_thread_that_took_another_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, released = PausingQueue(), threading.Event()
    monkeypatch.setattr(workers, "SimpleQueue", lambda: queue)

    @activity
    def work(long: bool) -> bool:
        return released.wait(SOON_S) if long else True

    @orchestrator
    async def flow(ctx: Context, long: bool) -> bool:
        return await work(long)

    client = run(flow, work, threads=2).client
    assert client.start("first", flow, long=False).result(SOON_S)  # from now on there is a thread that idles
    queue.hand_over.clear()
    long = client.start("long", flow, long=True)
    eventually(lambda: queue.taken == 2)
    short = client.start("short", flow, long=False)
    eventually(lambda: queue.submitted == 3)
    queue.hand_over.set()
    try:
        assert short.result(SOON_S / 2)
    finally:
        released.set()
    assert long.result(SOON_S)
