"""The three places where durably runs, behind one small vocabulary. What it does for a test a user could do by hand.

Time is the test's everywhere: it stands still, or passes as in life, until the test lets it pass faster.
"""

from __future__ import annotations

import json
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias, cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from durably import Activity, Client, Orchestrator, Registry, on
from durably.adapters.system import SystemClock
from durably.api.activity import CallbackActivity
from durably.aws.triggers import trigger_handler
from durably.codec.payloads import PydanticCodec
from durably.core.context import instant
from durably.core.errors import Stall
from durably.embedded import Embedded, service
from durably.runtime.callback_bodies import STATUS, beat_with_body, complete_with_body, fail_with_body
from durably.runtime.runtime import Essentials
from durably.testing import Environment
from tests.aws.driver import MAPPINGS, Cloud, deployed
from tests.aws.payloads import LambdaContext

Definition: TypeAlias = Orchestrator[..., Any] | Activity[..., Any]
Trigger: TypeAlias = Orchestrator[..., Any] | on.Trigger[Any]

_ACTIONS = {"": complete_with_body, "failure": fail_with_body, "heartbeat": beat_with_body}
_PATIENCE_S = 20.0


class Place(ABC):
    """Where executions live. Everything that is said to them goes through `client`.

    Attributes:
        client: of the deployment.
    """

    client: Client

    def __init__(self, stack: ExitStack, path: Path) -> None:
        self.stack = stack
        self.path = path

    @abstractmethod
    def deploy(self, *definitions: Definition, version: str = "v1") -> Client:
        """Deploy these, instead of what was deployed before."""

    @abstractmethod
    def settle(self) -> None:
        """Let everything happen that is due, and what that makes due."""

    @abstractmethod
    def meanwhile(self) -> None:
        """The same inside an activity, which is not done."""

    @abstractmethod
    def advance(self, duration: timedelta) -> None:
        """Let so much time pass, and happen what is due meanwhile."""

    @abstractmethod
    def tick(self, duration: timedelta) -> None:
        """Let so much time pass for the activity that calls it; nothing else happens."""

    @abstractmethod
    def post(self, url: str, body: object) -> int:
        """POST JSON to a callback's address; the status of the answer."""

    @abstractmethod
    def essentials(self) -> Essentials:
        """What a function of triggers is made of."""

    @contextmanager
    def asleep(self) -> Iterator[Client]:
        """Meanwhile nothing happens but what the client says. What it was told is dealt with together afterwards."""
        yield self.client

    @property
    def now(self) -> datetime:
        return instant(self.essentials().clock.now_ms())

    def result(self, execution_id: str) -> Any:
        """The result of an execution that has ended once everything is settled."""
        self.settle()
        return self.client.wait(execution_id, 0)

    def status(self, execution_id: str) -> str:
        self.settle()
        return self.client.describe(execution_id).status

    def kinds(self, execution_id: str) -> list[str]:
        """The events of the current run."""
        self.settle()
        return [entry.event.kind for entry in self.client.history(execution_id)]

    def deliver(self, event: Mapping[str, Any], *triggers: Trigger, starts: Sequence[Orchestrator[..., Any]]) -> Any:
        """Hand an AWS event to the function behind triggers, as Lambda does; its answer."""
        given = self.essentials()
        surroundings = SimpleNamespace(
            backend=given.backend, clock=given.clock, entropy=given.entropy, registry=lambda _: given.registry
        )
        function = trigger_handler(*triggers, starts=starts, surroundings=cast(Any, surroundings))
        return function(event, cast(Any, LambdaContext()))


class Memory(Place):
    """`durably.testing`: virtual time, each turn replayed from scratch and compared."""

    env: Environment | None = None

    def deploy(self, *definitions: Definition, version: str = "v1") -> Client:
        orchestrators, activities = _sorted(definitions)
        if self.env is None:
            self.env = self.stack.enter_context(Environment(orchestrators=orchestrators, activities=activities))
        registry = self.env._registry
        registry.__init__(orchestrators, activities, codec=registry.codec)  # type: ignore[misc]
        registry.code_version = version
        self.env._driver._taker.clear()
        self.client = self.env.client
        return self.client

    def settle(self) -> None:
        self._let(self._env.settle)

    def meanwhile(self) -> None:
        while self._env._driver.work(self._env.after):
            pass

    def advance(self, duration: timedelta) -> None:
        until = self.now + duration
        self._let(lambda: self._env.advance(max(until - self.now, timedelta(0))))

    def tick(self, duration: timedelta) -> None:
        self._env._clock.move_to(self._env._clock.now_ms() + _ms(duration))

    def post(self, url: str, body: object) -> int:
        token, _, action = url.partition("/callbacks/")[2].partition("/")
        return STATUS[_ACTIONS[action](self._env._runtime, token, json.dumps(body).encode()).verdict]

    def essentials(self) -> Essentials:
        return self._env._runtime

    @property
    def _env(self) -> Environment:
        assert self.env is not None
        return self.env

    def _let(self, happen: Callable[[], None]) -> None:
        """An environment fails a test where an execution stalls; here that is a status, as elsewhere."""
        while True:
            try:
                return happen()
            except Stall:
                if not any(self.client.list(status="stalled")):
                    raise


class Sqlite(Place):
    """`durably.embedded`: threads, one file, real time. The clock can be put forward."""

    ahead_ms = 0
    service: Embedded | None = None

    def __init__(self, stack: ExitStack, path: Path) -> None:
        super().__init__(stack, path)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(service, "SystemClock", lambda: self)
        stack.callback(self._stop)

    def now_ms(self) -> int:
        return SystemClock().now_ms() + self.ahead_ms

    def deploy(self, *definitions: Definition, version: str = "v1") -> Client:
        self._stop()
        self.deployed = definitions, version
        orchestrators, activities = _sorted(definitions)
        needs_http = any(isinstance(one, CallbackActivity) for one in activities)
        self.service = Embedded(
            self._file,
            orchestrators=orchestrators,
            activities=activities,
            http=("127.0.0.1", 0) if needs_http else None,
            code_version=version,
            synchronous="OFF",
        )
        self.service.start()
        self.client = self.service.client
        return self.client

    def settle(self) -> None:
        self._wait(lambda: self._busy() == 0)

    def meanwhile(self) -> None:
        self._wait(lambda: self._busy() == 1)

    def advance(self, duration: timedelta) -> None:
        until_ms = self.now_ms() + _ms(duration)
        self.settle()
        while (
            due_ms := min((due_ms for leased, due_ms in self._messages() if not leased), default=until_ms)
        ) < until_ms:
            self._put_forward(due_ms)
            self.settle()
        self._put_forward(until_ms)
        self.settle()

    def tick(self, duration: timedelta) -> None:
        self.ahead_ms += _ms(duration)

    def post(self, url: str, body: object) -> int:
        head = {"Content-Type": "application/json"}
        try:
            with urlopen(Request(url, json.dumps(body).encode(), head), timeout=_PATIENCE_S) as answer:
                return int(answer.status)
        except HTTPError as error:
            with error:
                return error.code

    def essentials(self) -> Essentials:
        assert self.service is not None
        return self.service._runtime

    @contextmanager
    def asleep(self) -> Iterator[Client]:
        definitions, version = self.deployed
        self._stop()
        client = service.connect(self._file, orchestrators=_sorted(definitions)[0])
        try:
            yield client
        finally:
            cast(Any, client)._backend.close()
            self.deploy(*definitions, version=version)

    @property
    def _file(self) -> Path:
        return self.path / "durably.db"

    def _stop(self) -> None:
        if self.service is not None:
            self.service.stop()
            self.service = None

    def _put_forward(self, to_ms: int) -> None:
        self.ahead_ms += max(0, to_ms - self.now_ms())

    def _busy(self) -> int:
        """How many messages are being handled, or due: by the time at which they had been read, or one was missed."""
        messages = self._messages()
        now_ms = self.now_ms()
        return sum(leased or due_ms <= now_ms for leased, due_ms in messages)

    def _messages(self) -> list[tuple[bool, int]]:
        with closing(sqlite3.connect(self._file)) as connection:
            return connection.execute("SELECT lease <> 0, visible_at_ms FROM messages").fetchall()

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, "what is due does not come to an end"
            time.sleep(0.002)


class Aws(Place):
    """The deployed handlers, fed from moto's queues."""

    cloud: Cloud | None = None

    def deploy(self, *definitions: Definition, version: str = "v1") -> Client:
        orchestrators, activities = _sorted(definitions)
        queued = [one for one in activities if one.settings.mode != "local"]
        local = [one for one in activities if one.settings.mode == "local"]
        if self.cloud is None:
            self.cloud = self.stack.enter_context(deployed(orchestrators, queued, local=local))
        cloud = self.cloud
        queue = cloud.url("activities")
        cloud.settings = replace(cloud.settings, activity_queues={one.name: queue for one in queued})
        cloud.orchestrators, cloud.activities, cloud.local = orchestrators, queued, local
        cloud.code_version = version
        cloud.restart()
        registry = Registry(orchestrators, activities, codec=PydanticCodec("always"), code_version=version)
        self.client = Client(cloud.backend, registry, cloud.clock, cloud.entropy, pause=lambda _: self._go_on())
        return self.client

    def settle(self) -> None:
        """What is due on AWS travels for a moment."""
        self._run(self._cloud.clock.ms + 10_000)

    def meanwhile(self) -> None:
        while sum(self._cloud.poll(queue) for queue in MAPPINGS):
            pass

    def advance(self, duration: timedelta) -> None:
        clock = self._cloud.clock
        until_ms = clock.ms + _ms(duration)
        self._run(until_ms)
        clock.ms = max(clock.ms, until_ms)
        self.settle()

    def tick(self, duration: timedelta) -> None:
        self._cloud.clock.ms += _ms(duration)

    def post(self, url: str, body: object) -> int:
        return self._cloud.call_back(url, body)[0]

    def essentials(self) -> Essentials:
        cloud = self._cloud
        return Essentials(
            backend=cloud.backend, registry=self.client.registry, clock=cloud.clock, entropy=cloud.entropy
        )

    @property
    def _cloud(self) -> Cloud:
        assert self.cloud is not None
        return self.cloud

    def _run(self, until_ms: int) -> None:
        while self._cloud.step() or self._next(until_ms):
            pass

    def _next(self, until_ms: float) -> bool:
        later_ms = self._cloud._next_ms()
        if later_ms is None or later_ms > until_ms:
            return False
        self._cloud.clock.ms = later_ms
        return True

    def _go_on(self) -> None:
        """Somebody waits: do something, or move on to what is due next."""
        if not self._cloud.step():
            self._next(float("inf"))


def _ms(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def _sorted(definitions: Sequence[Definition]) -> tuple[list[Orchestrator[..., Any]], list[Activity[..., Any]]]:
    orchestrators = [one for one in definitions if isinstance(one, Orchestrator)]
    return orchestrators, [one for one in definitions if isinstance(one, Activity)]
