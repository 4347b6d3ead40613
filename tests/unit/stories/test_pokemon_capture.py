"""The Pokemon story piece by piece: the services, the topics and their workers, the orchestrators."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from activities.pokemon_capture import (
    SERVICES_URL,
    Order,
    Pokemon,
    Status,
    Step,
    Wild,
    attack,
    cure,
    paralyze,
    restore,
    throw_pokeball,
)
from demo.pokemon_capture import EVENT, row
from demo.pokemon_choreography import CAPTURED, DEAD, ENCOUNTERED, LEASE_S, PARALYZED, WEAKENED, Broker, Worker, workers
from demo.pokemon_services import DAMAGE, RefusedError, Seen, Server, Services, failure
from demo.processes import without_proxy
from durably import Activity, NonRetryableError
from durably.core.errors import ExecutionFailedError
from durably.core.events import ActivityScheduled
from durably.testing import Environment
from orchestrators.pokemon_capture import Encounter, Outcome, capture_or_heal, capture_pokemon
from tests.unit.runtime.harness import Process

WILD = Wild(id="m", name="Mewtwo", level=50, max_health=200)
NOW = Pokemon(**WILD.model_dump(), health=200, status=Status.HEALTHY)
CAUGHT = NOW.model_copy(update={"trainer": "Sacha"})
MEET = Encounter(trainer="Sacha", pokemon=WILD)
ORDER = Order(pokemon="m", trainer="Sacha")


@pytest.fixture
def services(tmp_path: Path) -> Callable[..., Services]:
    def make(**failures: int) -> Services:
        made = Services(tmp_path / "services.db", {Step[name.upper()]: times for name, times in failures.items()})
        made.appear(WILD)
        return made

    return make


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    return Broker(tmp_path / "topics.db")


# --- the services -------------------------------------------------------------------------------------------------


def test_each_service_changes_what_it_knows_of(services: Callable[..., Services]) -> None:
    here = services()
    assert here.carry_out(Step.PARALYZE, ORDER).status is Status.PARALYZED
    assert [here.carry_out(Step.ATTACK, ORDER).health for _ in range(2)] == [200 - DAMAGE, 200 - 2 * DAMAGE]
    assert here.carry_out(Step.RESTORE, ORDER).health == 200
    assert here.carry_out(Step.CURE, ORDER).status is Status.HEALTHY
    assert here.carry_out(Step.THROW, ORDER) == CAUGHT
    assert here.appear(WILD) == CAUGHT
    done = {"paralyze": 1, "attack": 2, "restore": 1, "cure": 1, "throw": 1}
    assert here.look("m") == Seen(pokemon=CAUGHT, done=done, failed={})


def test_a_service_fails_as_often_as_it_is_asked_to_and_changes_nothing_then(
    services: Callable[..., Services],
) -> None:
    here = services(attack=2)
    for _ in range(2):
        with pytest.raises(RefusedError, match="attack failed") as caught:
            here.carry_out(Step.ATTACK, ORDER)
        assert caught.value.status == 503
    assert here.look("m") == Seen(pokemon=NOW, done={}, failed={"attack": 2})
    assert here.carry_out(Step.ATTACK, ORDER).health == 200 - DAMAGE


def test_the_same_order_is_carried_out_once(services: Callable[..., Services]) -> None:
    here = services(attack=1)
    keyed = Order(pokemon="m", trainer="Sacha", key="one")
    with pytest.raises(RefusedError):
        here.carry_out(Step.ATTACK, keyed)
    assert [here.carry_out(Step.ATTACK, keyed).health for _ in range(2)] == [200 - DAMAGE] * 2
    assert here.carry_out(Step.ATTACK, keyed.model_copy(update={"key": "two"})).health == 200 - 2 * DAMAGE


def test_who_fainted_or_is_someone_elses_cannot_be_captured(services: Callable[..., Services]) -> None:
    here = services()
    for _ in range(3):
        here.carry_out(Step.ATTACK, ORDER)
    with pytest.raises(RefusedError, match="has fainted") as caught:
        here.carry_out(Step.THROW, ORDER)
    assert caught.value.status == 409
    here.carry_out(Step.RESTORE, ORDER)
    here.carry_out(Step.THROW, ORDER)
    with pytest.raises(RefusedError, match="is Sacha's"):
        here.carry_out(Step.THROW, ORDER.model_copy(update={"trainer": "Jessie"}))
    with pytest.raises(RefusedError, match="no Pokemon 'x'"):
        here.carry_out(Step.CURE, ORDER.model_copy(update={"pokemon": "x"}))


@pytest.mark.parametrize("text", ["throw", "catch=1", "throw=often", "throw=-1", ""])
def test_a_failure_that_makes_no_sense_is_answered_with_the_steps(text: str) -> None:
    assert failure("throw=2") == (Step.THROW, 2)
    with pytest.raises(Exception, match="STEP is one of paralyze, attack, throw, cure, restore"):
        failure(text)


# --- choreography -------------------------------------------------------------------------------------------------


def test_a_message_is_one_workers_until_its_lease_is_over(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    broker.publish(ENCOUNTERED, "Sacha", "m")
    broker.publish(ENCOUNTERED, "Sacha", "m")  # there is one about this Pokemon
    first = broker.receive(ENCOUNTERED)
    assert broker.receive(ENCOUNTERED) is None
    later = time.time() + LEASE_S
    monkeypatch.setattr("demo.pokemon_choreography.time.time", lambda: later)
    second = broker.receive(ENCOUNTERED)
    assert first is not None
    assert second is not None
    assert (second.id, first.deliveries, second.deliveries) == (first.id, 1, 2)
    for message in (second, first):  # the first worker was only slow
        broker.finish(message, PARALYZED)
    assert broker.receive(PARALYZED) is not None
    assert broker.receive(PARALYZED) is None
    assert (broker.receive(ENCOUNTERED), broker.where("m"), broker.where("x")) == (None, PARALYZED, None)


def until_it_works(worker: Worker) -> None:
    done = threading.Event()
    while not worker.work():
        done.wait(0.02)


def test_a_step_that_fails_is_delivered_again_as_the_same_order(broker: Broker) -> None:
    orders: list[Order] = []

    def fails_once(step: Step, order: Order) -> None:
        orders.append(order)
        if len(orders) == 1:
            raise ConnectionError("no")

    broker.publish(ENCOUNTERED, "Sacha", "m")
    worker = Worker(broker, ENCOUNTERED, Step.PARALYZE, PARALYZED, ask=fails_once)
    assert worker.work()
    assert (worker.work(), broker.where("m")) == (False, ENCOUNTERED)
    until_it_works(worker)
    assert broker.where("m") == PARALYZED
    assert orders[0] == orders[1]
    assert orders[0].key


@pytest.mark.parametrize(("error", "deliveries"), [(ConnectionError("no"), 3), (NonRetryableError("never"), 1)])
def test_a_message_that_nobody_can_handle_is_buried(broker: Broker, error: Exception, deliveries: int) -> None:
    asked: list[Step] = []

    def fails(step: Step, order: Order) -> None:
        asked.append(step)
        raise error

    broker.publish(WEAKENED, "Sacha", "m")
    worker = Worker(broker, WEAKENED, Step.THROW, CAPTURED, ask=fails)
    while broker.where("m") == WEAKENED:
        until_it_works(worker)
    assert (broker.where("m"), asked) == (DEAD, [Step.THROW] * deliveries)


def test_the_topics_make_a_chain(broker: Broker) -> None:
    chain = [(worker._taken, worker._step, worker._published) for worker in workers(broker)]
    assert chain == [
        (ENCOUNTERED, Step.PARALYZE, PARALYZED),
        (PARALYZED, Step.ATTACK, WEAKENED),
        (WEAKENED, Step.THROW, CAPTURED),
    ]


# --- the orchestrators --------------------------------------------------------------------------------------------


@pytest.fixture
def mewtwo(services: Callable[..., Services], monkeypatch: pytest.MonkeyPatch) -> Generator[Services]:
    """The services behind real HTTP; the ball misses once."""
    for name, value in without_proxy().items():
        monkeypatch.setenv(name, value)
    with Server(services(throw=1)) as server:
        monkeypatch.setenv(SERVICES_URL, server.url)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.services
        server.shutdown()
        thread.join(10)


def test_a_retried_capture_goes_on_with_the_throw(mewtwo: Services) -> None:
    process = Process([capture_pokemon, paralyze, attack, throw_pokeball])
    handle = process.client.start("e", capture_pokemon, MEET)
    process.work()
    with pytest.raises(ExecutionFailedError, match="throw failed, as it was asked to"):
        handle.result(0)
    assert process.client.retry("e") == 2
    process.work()
    assert handle.result(0) == mewtwo.look("m").pokemon
    assert mewtwo.look("m").done == {"paralyze": 1, "attack": 1, "throw": 1}
    assert mewtwo.look("m").failed == {"throw": 1}


def test_a_saga_leaves_the_pokemon_as_it_was(mewtwo: Services) -> None:
    process = Process([capture_or_heal, paralyze, attack, throw_pokeball, cure, restore])
    handle = process.client.start("e", capture_or_heal, MEET)
    process.work()
    assert handle.result(0) == Outcome(problem="POST /pokeball/throw: 503 throw failed, as it was asked to")
    assert mewtwo.look("m").pokemon == NOW
    assert list(mewtwo.look("m").done) == ["paralyze", "attack", "restore", "cure"]


@pytest.fixture
def env(durably_env: Environment) -> Environment:
    for step in (paralyze, attack, throw_pokeball, cure, restore):
        durably_env.mock(step).returns(CAUGHT)
    return durably_env


def asked(env: Environment) -> list[str]:
    """The activities asked for, in order."""
    return [entry.event.name for entry in env.history() if isinstance(entry.event, ActivityScheduled)]


def test_a_capture_without_failures_is_the_same_both_ways(env: Environment) -> None:
    steps = ["paralyze", "attack", "throw_pokeball"]
    assert env.assert_replay_safe(capture_pokemon, MEET) == CAUGHT
    assert asked(env) == steps
    assert env.assert_replay_safe(capture_or_heal, MEET) == Outcome(captured=CAUGHT)
    assert asked(env) == steps


@pytest.mark.parametrize(
    ("failing", "undone"),
    [(paralyze, ["cure"]), (attack, ["restore", "cure"]), (throw_pokeball, ["restore", "cure"])],
    ids=["paralyze", "attack", "throw"],
)
def test_what_may_have_been_done_is_undone_in_reverse(
    env: Environment, failing: Activity[[str, str], Pokemon], undone: list[str]
) -> None:
    steps: list[Activity[[str, str], Pokemon]] = [paralyze, attack, throw_pokeball]
    env.mock(failing).raises(ConnectionError("it went wrong"))
    assert env.assert_replay_safe(capture_or_heal, MEET) == Outcome(problem="it went wrong")
    tried = [step.name for step in steps[: steps.index(failing) + 1]]
    assert asked(env) == tried + undone


def test_a_saga_that_cannot_undo_everything_undoes_the_rest_and_says_so(env: Environment) -> None:
    env.mock(throw_pokeball).raises(ConnectionError("missed"))
    restoring = env.mock(restore).raises(ConnectionError("no berries"))
    with pytest.raises(ExecutionFailedError, match=r"1 of 2 compensations failed \(restore: .*no berries"):
        env.run(capture_or_heal, MEET)
    assert len(restoring.calls) == 5
    assert asked(env) == ["paralyze", "attack", "throw_pokeball", "restore", "cure"]


# --- the comparison -----------------------------------------------------------------------------------------------


def test_a_row_says_what_is_left_and_what_it_took() -> None:
    seen = Seen(pokemon=NOW, done={"paralyze": 2, "restore": 1}, failed={"paralyze": 1, "throw": 3})
    assert row("saga", seen) == ("saga", "nobody", "HEALTHY", "200 of 200", "2, failed 1", "0", "0, failed 3", "0", "1")


def test_the_event_is_an_encounter() -> None:
    met = Encounter.model_validate_json(EVENT.read_bytes())
    assert met == Encounter(trainer="Sacha", pokemon=Wild(id="mewtwo", name="Mewtwo", level=50, max_health=200))
