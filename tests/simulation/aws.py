"""The world on AWS: the deployed functions over moto, with trouble at every HTTP request and every delivery.

Lambda's pollers, EventBridge Scheduler and its periodic call of the sweeper are the world's; they do not fail, but they
deliver late, twice, out of order or not yet. One thread: moto is not thread-safe.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast
from unittest.mock import Mock

import botocore.endpoint
import moto.core.utils
import moto.sqs.models
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from moto import mock_aws
from moto.core.botocore_stubber import BotocoreStubber, MockRawResponse
from moto.core.models import botocore_stubber

import durably.aws.attempts
from durably.adapters.aws import AwsBackend, Clients
from durably.aws import Surroundings, activity_handler, dead_letters_handler, orchestrator_handler, timers_handler
from durably.aws.sweeper import sweeper_handler
from durably.client import Client
from durably.core.errors import StorageError
from durably.ports.clock import Clock
from durably.runtime.attempt import Attempt, open_attempt
from durably.runtime.runtime import Limits, Runtime
from tests.aws.driver import MAPPINGS, VISIBILITY_S
from tests.aws.payloads import ACTIVITIES as ACTIVITY_QUEUE
from tests.aws.payloads import REGION, LambdaContext
from tests.simulation import activities
from tests.simulation.aside import Aside, driven
from tests.simulation.aws_store import REMOTE, AwsStore
from tests.simulation.faults import Crash, Faults, FaultyBackend, Process, RandomFaults
from tests.simulation.gateway import HttpOutsiders
from tests.simulation.interpret import interpret
from tests.simulation.outside import Outsiders
from tests.simulation.programs import Node, draw_program, features
from tests.simulation.worker import SkewedClock, Worker
from tests.simulation.world import SIGNER, World

if TYPE_CHECKING:
    from random import Random

    from tests.simulation.store import Store

R = TypeVar("R")
_ANSWER = "simulated_answer"  # of a request that moto is not to answer (again)
_SWEEP_MS = 400_000
_MOST_SWEEPS = 60  # more than a seed has faults for
REQUEST_FAULTS = (
    *("crash before", "crash after", "crash before", "crash after", "zombie before", "zombie after"),
    *("answer lost", "answers lost", "requests lost", "refused", "entries refused"),
)


class RequestFaults(RandomFaults):
    """Faults at HTTP requests, besides those at deliveries."""

    def request(self, operation: str) -> str | None:
        """What befalls the next request: one of `REQUEST_FAULTS`, or None."""
        if not self._strikes():
            return None
        kind = self._rng.choice(REQUEST_FAULTS)
        if kind == "entries refused" and operation != "sqs.SendMessageBatch":
            kind = "refused"
        self.counts[f"{kind} {operation}"] += 1
        return kind


class Death(Crash, KeyboardInterrupt):
    """An interrupt: nothing that runs an activity takes it for the activity's failure."""


class Wire:
    """Between boto and moto: whose requests these are, and what becomes of them."""

    current: Wire | None = None

    def __init__(self, world: AwsWorld) -> None:
        self.world = world
        self.process: Process | None = None
        self._fault: str | None = None

    @classmethod
    def observe(cls, client: Any) -> None:
        client.meta.events.register_first("before-send", cls._before_send)

    @classmethod
    def _before_send(cls, event_name: str, request: Any, **more: Any) -> Any:
        wire = cls.current
        if wire is None or wire.process is None:
            return None
        return wire._sent(wire.process, event_name, request, lambda: botocore_stubber(event_name, request, **more))

    @contextmanager
    def used_by(self, process: Process | None) -> Iterator[None]:
        """Requests in this block are `process`'s."""
        outer, self.process = self.process, process
        try:
            yield
        finally:
            self.process = outer

    def _sent(self, process: Process, event_name: str, request: Any, carry_out: Callable[[], Any]) -> Any:
        operation = event_name.removeprefix("before-send.")
        if b"attempt=1" in request.headers.get("amz-sdk-request", b""):
            faults = self.world.faults
            assert isinstance(faults, RequestFaults)
            self._fault = faults.request(operation)
        elif self._fault == "answer lost":  # only the first was
            self._fault = None
        fault = self._fault
        if fault is not None and b".wake.1." in (request.body or b""):
            self.world.sweep_later()
        with self.used_by(None):
            self.world.aws.remember_record(operation, request)
        if fault is None:
            return None
        if fault.startswith("crash"):
            if fault == "crash after":
                carry_out()
            raise Death(f"{fault} {operation}")
        if fault.startswith("zombie"):
            return self._suspended(fault, process, operation, request, carry_out)
        return self._unanswered(fault, request, carry_out)

    def _suspended(
        self, fault: str, process: Process, operation: str, request: Any, carry_out: Callable[[], Any]
    ) -> Any:
        if fault == "zombie before":
            self._suspend(process)
            with self.used_by(None):
                self.world.aws.remember_record(operation, request)
            return None
        answer = carry_out()
        setattr(request, _ANSWER, answer)
        self._suspend(process)
        return answer

    def _suspend(self, process: Process) -> None:
        with self.used_by(None):
            process.suspend()

    def _unanswered(self, fault: str, request: Any, carry_out: Callable[[], Any]) -> Any:
        match fault:
            case "requests lost":
                raise EndpointConnectionError(endpoint_url=request.url)
            case "refused":
                return _answered(request, 400, {"__type": "ThrottlingException", "message": "simulated"})
            case "entries refused":
                return self._refuse_some(request, carry_out)
            case _:
                carry_out()
                raise ReadTimeoutError(endpoint_url=request.url)

    def _refuse_some(self, request: Any, carry_out: Callable[[], Any]) -> Any:
        asked = json.loads(request.body)
        taken = [entry for entry in asked["Entries"] if self.world.rng.randrange(2)]
        told: dict[str, Any] = {"Successful": [], "Failed": []}
        if taken:
            request.body = json.dumps(asked | {"Entries": taken}).encode()
            told = json.loads(carry_out().content)
        told["Failed"] = [
            {"Id": entry["Id"], "SenderFault": False, "Code": "InternalError", "Message": "simulated"}
            for entry in asked["Entries"]
            if entry not in taken
        ]
        return _answered(request, 200, told)


def _answered(request: Any, status: int, body: dict[str, Any]) -> AWSResponse:
    raw = cast("Any", MockRawResponse(json.dumps(body).encode()))
    answer = AWSResponse(request.url, status, HTTPHeaders(), raw)
    setattr(request, _ANSWER, answer)
    return answer


@cache
def _clients() -> Clients:
    """Making clients takes a second; all worlds share them."""
    return Clients(region=REGION, observers=[Wire.observe])


class Attended(FaultyBackend):
    """The backend of a client or a caller: its requests are theirs."""

    def __init__(self, inner: AwsBackend, wire: Wire, faults: Faults, process: Process) -> None:
        super().__init__(inner, faults, process)
        self._wire = wire

    def _call(self, name: str, operation: Callable[[], R]) -> R:
        del name
        with self._wire.used_by(self._process):
            return operation()


class AwsWorker(Worker):
    """One execution environment of each function; what they keep in memory dies together."""

    def __init__(self, world: AwsWorld, offset_ms: int) -> None:
        self._aws = world
        self._clock = SkewedClock(world, offset_ms)
        super().__init__(world, offset_ms, embedded=False, taker=_no_turns)
        self._start()

    def suspend(self) -> None:
        self.world.let_others_go_on()

    def restart(self) -> None:
        self._orchestrator._turns.clear()
        self._start()
        self.life += 1
        self.alive = True

    def close(self) -> None:
        self._orchestrator._turns.clear()

    def _start(self) -> None:
        surroundings = self._aws.surroundings(self._clock)
        self._attempting: list[Callable[..., Any]] = []
        self._orchestrator = orchestrator_handler(
            interpret, local=[activities.work_here], turn_seconds=300, surroundings=surroundings
        )
        self._functions: dict[str, Callable[..., Any]] = {
            "orchestrator": self._orchestrator,
            "timers": timers_handler(surroundings=surroundings),
            "dead_letters": dead_letters_handler(surroundings=surroundings),
            "sweeper": sweeper_handler(interpret, surroundings=surroundings),
        }

    def attempt(self, record: dict[str, Any]) -> Any:
        """Run an activity, in an environment that dies alone; None if it failed or died."""
        handlers = self._attempting
        if not handlers:
            handlers.append(activity_handler(*REMOTE, surroundings=self._aws.surroundings(self._clock)))
        handler = handlers.pop()
        try:
            with self._aws.wire.used_by(self):
                answer = handler({"Records": [record]}, LambdaContext(lambda: 900_000))
        except (StorageError, KeyboardInterrupt):
            return None
        handlers.append(handler)
        return answer

    def invoke(self, function: str, event: dict[str, Any]) -> Any:
        """Call a function; None if it failed or died."""
        self.busy = True
        try:
            with self._aws.wire.used_by(self):
                return self._functions[function](event, LambdaContext(lambda: 900_000))
        except StorageError:
            return None
        except (Crash, KeyboardInterrupt):
            self._die()
            return None
        finally:
            self.busy = False


class AwsWorld(World):
    """A world whose processes are Lambda functions. To be made and used within `on_moto`."""

    def __init__(self, seed: int, **more: Any) -> None:
        self.wire = Wire.current = Wire(self)
        self.asides: set[Aside] = set()
        super().__init__(seed, "aws", **more)

    @property
    def aws(self) -> AwsStore:
        return cast("AwsStore", self.store)

    def _drawn_limits(self) -> Limits:
        return replace(super()._drawn_limits(), deadly_pause_ms=60_000)

    def made_backend(self, clock: Clock) -> AwsBackend:
        return AwsBackend(self.aws.settings, clients=_clients(), clock=clock, sleep=lambda _: None)

    def surroundings(self, clock: Clock) -> Surroundings:
        """Those of a process's functions."""
        return Surroundings(
            settings=self.aws.settings,
            clients=_clients(),
            backend=self.made_backend(clock),
            clock=clock,
            entropy=self._entropy,
            signer=SIGNER,
            codec=cast("Any", self.registry.codec),
            limits=self._limits,
            code_version="simulated",
            sleep=lambda _: None,
        )

    def runtime_for(self, process: Process, offset_ms: int) -> Runtime:
        clock = SkewedClock(self, offset_ms)
        return Runtime(
            backend=Attended(self.made_backend(clock), self.wire, self.faults, process),
            registry=self.registry,
            clock=clock,
            entropy=self._entropy,
            signer=SIGNER,
            callback_url="http://simulation",
            limits=self._limits,
        )

    def calm_client(self) -> Client:
        clock = SkewedClock(self, 0)
        return Client(self.made_backend(clock), self.registry, clock, self._entropy)

    def sweep_later(self) -> None:
        """The sweeper comes where it may find something, and once nothing else is left to do."""
        self.at(_SWEEP_MS, self._sweep_now)

    def _sweep_now(self) -> None:
        idle = [each for each in self.workers if each.alive and not each.busy]
        if not idle:
            self.sweep_later()
            return
        worker = self.rng.choice(idle)
        assert isinstance(worker, AwsWorker)
        worker.invoke("sweeper", {})

    def run(self) -> None:
        """Go on until the sweeper finds nothing to do either."""
        try:
            with self._listening(), _told_of_attempts(self):
                super().run()
        finally:
            for aside in list(self.asides):
                aside.end()

    def _go_on(self) -> None:
        super()._go_on()
        for _ in range(_MOST_SWEEPS):
            if all(record.closed for record in self.store.records()):
                return
            self.now_ms += _SWEEP_MS
            worker = self.rng.choice([each for each in self.workers if each.alive])
            assert isinstance(worker, AwsWorker)
            report = worker.invoke("sweeper", {})
            super()._go_on()
            if report is not None and not report["woken"]:
                return

    # --- what World asks ----------------------------------------------------------------------------------------

    def _made_store(self) -> Store:
        store = AwsStore(self, _clients())
        return cast("Store", store)  # it has what World and the invariants ask of one

    def _made_worker(self, *, embedded: bool) -> Worker:
        del embedded
        return AwsWorker(self, self.skew_ms())

    def _made_outsiders(self) -> Outsiders:
        return HttpOutsiders(self)

    def _drawn_faults(self) -> Faults:
        return request_faults(self.rng)

    def _drawn_program(self) -> Node:
        """A small one: moto is slow. `overrun` would really take its time here."""
        while True:
            program = draw_program(self.rng, 4)
            if "overrun" not in features(program):
                return program

    def attempted(self, opened: object) -> None:
        """An attempt is about to run; it may take long."""
        if isinstance(opened, Attempt):
            self.ran(opened)
            if self.slow and not self.rng.randrange(4):
                with self.wire.used_by(None):
                    self.let_others_go_on()

    def _from_queue(self, worker: Worker) -> None:
        assert isinstance(worker, AwsWorker)
        due = self.aws.due()
        if not due:
            self.aws.fire_schedules(self.faults.delivery() == "duplicate")
            return
        queue = self.rng.choice(due) if self.shuffled else due[0]
        limit = 1 if queue == ACTIVITY_QUEUE else self.rng.choice((1, 1, 3, 10))
        records = self.aws.receive(queue, limit=limit, shuffled=self.shuffled)
        handed = [record for record in records if self._arrives(record, queue, worker)]
        if handed:
            self._deliver(queue, handed, worker)

    def _deliver(self, queue: str, records: list[dict[str, Any]], worker: AwsWorker) -> None:
        if queue == ACTIVITY_QUEUE:
            [record] = records
            Aside(
                self,
                lambda: self._answered(queue, records, worker.attempt(record)),
                lambda pause_ms: self.aws.extend(queue, record, VISIBILITY_S + pause_ms // 1000),
            ).go_on()
        else:
            self._answered(queue, records, worker.invoke(MAPPINGS[queue], {"Records": records}))

    def _answered(self, queue: str, records: list[dict[str, Any]], answer: Any) -> None:
        """Delete what a function dealt with."""
        if answer is None:
            return
        failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
        for record in records:
            if record["messageId"] not in failed:
                self.aws.delete(queue, record)

    def _arrives(self, record: dict[str, Any], queue: str, worker: AwsWorker) -> bool:
        """Whether a received message is handed to a function now, and how."""
        rng = self.rng
        match self.faults.delivery():
            case "duplicate":
                self.at(rng.choice((0, 1_000, 40_000)), lambda: self._deliver_again(queue, record))
            case "delay":
                self.aws.release(queue, record, rng.choice((1, 30)))
                return False
            case "drop until redelivery":
                return False
            case "lease expires":
                self.aws.release(queue, record, 0)
            case "receive count":
                record["attributes"]["ApproximateReceiveCount"] = "6"
            case "restart":
                worker.restart()
            case _:
                pass
        return True

    def _deliver_again(self, queue: str, record: dict[str, Any]) -> None:
        idle = [each for each in self.workers if each.alive and not each.busy]
        if idle:
            worker = self.rng.choice(idle)
            assert isinstance(worker, AwsWorker)
            self._deliver(queue, [record], worker)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """The time of moto's queues is the world's."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(moto.core.utils, "utcnow", self.aws.utcnow)
            yield


def request_faults(rng: Random) -> RequestFaults:
    """As many as `World` draws, at requests: there are several to a call."""
    return RequestFaults(rng, budget=rng.choice((0, 2, 6, 15, 30)), gap=rng.choice((3, 8, 20)))


@contextmanager
def on_moto() -> Iterator[None]:
    """An empty account for one world."""
    process_request = BotocoreStubber.process_request

    def answered(stubber: BotocoreStubber, request: Any) -> Any:
        return None if hasattr(request, _ANSWER) else process_request(stubber, request)

    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.setattr(BotocoreStubber, "process_request", answered)
        patch.setattr(botocore.endpoint, "time", Mock(spec=time))  # boto sleeps between its attempts
        try:
            yield
        finally:
            Wire.current = None


@contextmanager
def _told_of_attempts(world: AwsWorld) -> Iterator[None]:

    def opened(*args: Any, **kwargs: Any) -> Any:
        found = open_attempt(*args, **kwargs)
        world.attempted(found)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durably.aws.attempts, "open_attempt", opened)
        patch.setattr(durably.aws.attempts, "_call", driven)
        yield


def _no_turns(_: Runtime) -> Any:
    """The orchestrator's function has its own."""
    return None
