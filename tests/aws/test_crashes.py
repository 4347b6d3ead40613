"""Every boto call of every handler: the process dies before it and after it, and the end is the same.

By default each story's first and last call of every operation in every handler; `make sweep` sweeps all calls and
prints the table of crash points.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, TypeVar

import pytest

from durably import Client, Orchestrator
from durably.core.context import instant
from durably.core.events import ActivityCompleted, ActivityFailed, TimerFired
from tests.aws import programs
from tests.aws.driver import MAPPINGS, Call, Cloud, Crash, Moment, deployed
from tests.aws.payloads import ACTIVITIES, DELAY, EVENTS
from tests.aws.programs import seen

pytestmark = pytest.mark.slow

HANDLERS = ("orchestrator", "activities", "timers", "callbacks", "dead_letters", "sweeper", "api")
OPERATIONS = (
    "start",
    "signal",
    "update",
    "suspend",
    "resume",
    "cancel",
    "terminate",
    "retry",
    "reset",
    "fork",
    "purge",
)
CLIENTS = tuple(f"client.{operation}" for operation in (*OPERATIONS, "purge_closed"))
T = TypeVar("T")
PARTS = 4  # of a sweep, so that each test takes seconds
FULL = os.environ.get("DURABLY_SWEEP") == "full"
table: Counter[tuple[str, str]] = Counter()


@dataclass(frozen=True)
class Story:
    """What happens, and what must come of it, whatever dies.

    Attributes:
        tell: makes it happen, crashes included.
        expected: the results by execution id.
    """

    tell: Callable[[Cloud], None]
    expected: dict[str, Any]


def _start(cloud: Cloud, execution_id: str, program: Orchestrator[..., Any], *args: Any) -> None:
    """Start through the API, as often as it takes; the request id makes the repetitions one."""
    names = list(inspect.signature(program.fn).parameters)[1:]
    body = {
        "execution_id": execution_id,
        "orchestrator": program.name,
        "input": dict(zip(names, args, strict=False)),
        "request_id": execution_id,
    }
    for _ in range(5):
        try:
            status, answer = cloud.http("api", "POST", "/executions", body)
        except Crash:
            continue
        assert status in (200, 201), answer
        return
    raise AssertionError("the start never succeeded")


def _answer(cloud: Cloud, question: str, value: int) -> None:
    """Call back as soon as it is asked, as often as it takes."""
    cloud.run(until=lambda: f"{question}/1" in seen)
    for _ in range(5):
        try:
            status, answer = cloud.call_back(seen[f"{question}/1"], value)
        except Crash:
            continue
        assert status == 200, answer
        return
    raise AssertionError("the callback never got through")


def _everything(cloud: Cloud) -> None:
    _start(cloud, "x-1", programs.everything, "q")
    _answer(cloud, "q", 7)
    cloud.run(until=lambda: cloud.closed("x-1"))


def _together(cloud: Cloud) -> None:
    """Messages of two executions in each batch, and newer ones beside those that are delivered again."""
    _start(cloud, "x-1", programs.pipeline, 1)
    _start(cloud, "x-2", programs.pipeline, 2)
    cloud.run(until=lambda: cloud.closed("x-1", "x-2"))


def _newer(cloud: Cloud) -> None:
    """What dies is delivered again together with messages that came meanwhile."""
    _start(cloud, "x-1", programs.mixed, 1)
    _start(cloud, "x-2", programs.fan_out_of_four, 4)
    for _ in range(60):
        for queue in (ACTIVITIES, DELAY):
            cloud.poll(queue)
            cloud.poll(queue)
        cloud.poll(EVENTS)
        cloud.clock.advance(5)  # so that messages pile up beside the one that waits for its visibility
    cloud.run(until=lambda: cloud.closed("x-1", "x-2"))


def _late_callback(cloud: Cloud) -> None:
    _start(cloud, "x-1", programs.asker, "q")
    cloud.run(until=lambda: "q/1" in seen)
    for _ in range(5):
        try:
            assert cloud.call_back(f"{seen['q/1']}/failure", {"type": "Busy"})[0] == 200
            break
        except Crash:
            continue
    cloud.run(until=lambda: "q/2" in seen)
    for _ in range(5):
        try:
            assert cloud.call_back(seen["q/2"], 2)[0] == 200
            break
        except Crash:
            continue
    cloud.run(until=lambda: cloud.closed("x-1"))


def _heartbeats(cloud: Cloud) -> None:
    """An activity that beats, and another that somebody beats for and then answers by its number."""
    _start(cloud, "x-1", programs.watched, "q")
    cloud.run(until=lambda: "q" in seen)
    route = "/executions/x-1/activities/2"
    for function, path, body in (
        ("callbacks", f"{seen['q'].removeprefix('https://api.example.com')}/heartbeat", 1),
        ("api", f"{route}/heartbeat", 2),
        ("api", f"{route}/complete", 7),
    ):
        for _ in range(5):
            try:
                status, answer = cloud.http(function, "POST", path, body)
            except Crash:
                continue
            assert status == 200, answer
            break
    cloud.run(until=lambda: cloud.closed("x-1"))


def _dead_letters(cloud: Cloud) -> None:
    """An activity that ends its process at every try, and an event and a delayed message received in vain."""
    programs.deadly.add("fatal")
    _start(cloud, "x-1", programs.survivor, 1)
    _start(cloud, "x-2", programs.overslept, 3)
    for queue in (EVENTS, DELAY):
        for _ in range(FEW_RECEIVES + 1):  # received and forgotten, until it is dead
            cloud.receive(queue)
            cloud.clock.advance(61)
        cloud.run(until=lambda queue=queue: cloud.size(queue) == 0 or queue == EVENTS)  # type: ignore[misc]
    cloud.run(until=lambda: cloud.closed("x-1", "x-2"))


def _swept(cloud: Cloud) -> None:
    """A start whose wake was never sent."""
    _start(cloud, "x-1", programs.pipeline, 1)
    cloud.sqs.purge_queue(QueueUrl=cloud.url(EVENTS))
    for _ in range(3):
        cloud.clock.advance(301)
        try:
            cloud.invoke("sweeper", {"source": "aws.scheduler"})
        except Crash:
            continue
    cloud.run(until=lambda: cloud.closed("x-1"))


def _family(cloud: Cloud) -> None:
    """Children that are started, signalled, cancelled, and ended with their parent."""
    _start(cloud, "x-1", programs.family, 3)
    cloud.run(until=lambda: cloud.closed("x-1"))


def _relay(cloud: Cloud) -> None:
    """Three runs, a signal each."""
    _start(cloud, "x-1", programs.relay, 3)
    for n in (1, 2, 3):
        _repeat(lambda n=n: cloud.client.signal("x-1", programs.GO, n, request_id=f"s-{n}"))  # type: ignore[misc]
        cloud.run()
    cloud.run(until=lambda: cloud.closed("x-1"))


def _again(cloud: Cloud) -> None:
    """Suspended, resumed, terminated, and retried."""
    _start(cloud, "x-1", programs.pipeline, 1)
    cloud.client.suspend("x-1")
    cloud.run()
    cloud.client.resume("x-1")
    cloud.client.terminate("x-1")
    cloud.run(until=lambda: cloud.closed("x-1"))
    _repeat(lambda: cloud.client.retry("x-1"))
    cloud.run(until=lambda: cloud.closed("x-1"))


def _repeat(ask: Callable[[], T]) -> T:
    for _ in range(5):
        try:
            return ask()
        except Crash:
            continue
    raise AssertionError("it never got through")


def _ask(cloud: Cloud, what: str, do: Callable[[Client], T]) -> T:
    """Ask as often as it takes, and once more, since the answer may be lost; both answers are the same.

    It is done with a client of its own, whose calls are those of the function `client.WHAT`.
    """

    def ask() -> T:
        client = Client(
            cloud.process.backend, cloud.client.registry, cloud.clock, cloud.entropy, pause=lambda _: cloud.run()
        )
        cloud._function = f"client.{what}"
        try:
            return do(client)
        finally:
            cloud._function = None

    answers = [_repeat(ask) for _ in range(2)]
    assert answers[0] == answers[1]
    return answers[0]


def _talking(cloud: Cloud) -> None:
    """Clients that start, signal and update an execution, keep it waiting, and cancel another."""
    for id_ in ("x-1", "x-2"):
        once = programs.heard.options(request_id=id_)
        _ask(cloud, "start", lambda c, id_=id_, once=once: c.start(id_, once).gen)  # type: ignore[misc]
    cloud.run()
    _ask(cloud, "suspend", lambda c: c.suspend("x-1", request_id="a"))
    cloud.run()
    _ask(cloud, "signal", lambda c: c.signal("x-1", programs.GO, 2, request_id="b"))
    assert cloud.status("x-1") == "suspended"
    _ask(cloud, "resume", lambda c: c.resume("x-1", request_id="c"))
    cloud.run()
    told = _ask(cloud, "update", lambda c: c.update("x-1", programs.ADD, 3, request_id="d"))
    _ask(cloud, "cancel", lambda c: c.cancel("x-2"))
    cloud.run()
    assert (told, cloud.status("x-2"), cloud.run_of("x-1").run) == (2, "cancelled", 1)


def _rewinding(cloud: Cloud) -> None:
    """Clients that terminate, retry, reset and fork."""
    _start(cloud, "x-1", programs.parent_of_one, 1)
    cloud.run(until=lambda: cloud.closed("x-1"))
    assert _ask(cloud, "reset", lambda c: c.reset("x-1", 2, request_id="a")) == 2
    _ask(cloud, "terminate", lambda c: c.terminate("x-1"))
    cloud.run(until=lambda: cloud.closed("x-1"))
    assert _ask(cloud, "retry", lambda c: c.retry("x-1", request_id="b")) == 3
    _ask(cloud, "fork", lambda c: c.fork("x-1", "x-2", to_event=2, request_id="c").gen)
    cloud.run(until=lambda: cloud.closed("x-1", "x-2"))
    assert [cloud.run_of(id_).run for id_ in ("x-1", "x-2")] == [3, 1]


def _purging(cloud: Cloud) -> None:
    """Clients that purge one execution, and all that were closed before an instant; of a large one S3 holds a part."""
    large = "".join(hashlib.sha256(str(n).encode()).hexdigest() for n in range(14_000))
    for id_, text in (("x-1", "small"), ("x-2", large), ("x-3", "small")):
        cloud.client.start(id_, programs.echo, text)  # one that dies half-way leaves a turn that nobody finds
    cloud.run(until=lambda: cloud.closed("x-1", "x-2", "x-3"))
    _ask(cloud, "purge", lambda c: c.purge("x-1"))
    closed_before = instant(cloud.clock.ms + 1)
    _ask(cloud, "purge_closed", lambda c: deque(c.purge_closed(closed_before=closed_before), maxlen=0))
    found = cloud.dynamodb.scan(TableName="table")["Items"]
    assert sorted((item["pk"]["S"], item["status"]["S"]) for item in found) == [(f"x-{n}", "purged") for n in (1, 2, 3)]
    assert not any("gsi_pk" in item for item in found)
    assert "Contents" not in cloud.s3.list_objects_v2(Bucket="bucket", Prefix="bodies/")


FEW_RECEIVES = 5  # or telling of dead letters would take long
STORIES = {
    "everything": Story(_everything, {"x-1": [2, 2, 7, 2, 2]}),
    "two together": Story(_together, {"x-1": 8, "x-2": 16}),
    "with newer messages": Story(_newer, {"x-1": [3, 2, 3], "x-2": 12}),
    "failed callback": Story(_late_callback, {"x-1": 2}),
    "dead letters": Story(_dead_letters, {"x-1": "durably.core.errors.AttemptLostError", "x-2": True}),
    "lost wake": Story(_swept, {"x-1": 8}),
    "family": Story(_family, {"x-1": [8, 6]}),
    "relay": Story(_relay, {"x-1": 6}),
    "heartbeats": Story(_heartbeats, {"x-1": [3, 7]}),
    "again": Story(_again, {"x-1": 8}),
    "clients that talk": Story(_talking, {"x-1": [2, 3]}),
    "clients that rewind": Story(_rewinding, {"x-1": 8, "x-2": 8}),
    "clients that purge": Story(_purging, {}),
}


@cache
def calls_of(name: str) -> list[tuple[str, str]]:
    """The calls of a story in which nobody dies: the same each time."""
    return told(STORIES[name], None)


def points(name: str, part: int, *, last: bool = True) -> Iterator[tuple[int, Moment]]:
    """A part of the calls of a story to strike at, by index, before and after.

    Of the sample, `last` tells whether the last call of each operation belongs to it, beside the first.
    """
    calls = calls_of(name)
    chosen = [index for index in range(len(calls)) if not _in_a_row(calls, index)]
    if not FULL:
        chosen = [i for i in chosen if calls[i] not in calls[:i] or (last and calls[i] not in calls[i + 1 :])]
    return product(chosen[part::PARTS], ("before", "after"))


def _in_a_row(calls: list[tuple[str, str]], index: int) -> bool:
    """The sweeper asks each shard of the index in turn: the first and the last of such a row stand for the others."""
    return calls[index][1] == "dynamodb.Query" and calls[max(0, index - 1) : index + 2] == [calls[index]] * 3


def told(story: Story, hook: Callable[[Call, Cloud], None] | None) -> list[tuple[str, str]]:
    """Tell a story in a world of its own and check its end; the calls that were made.

    `hook` is told of each call, and may die of it.
    """
    programs.reset()
    with deployed(
        programs.ORCHESTRATORS, programs.ACTIVITIES, local=[programs.near], max_receives=FEW_RECEIVES
    ) as cloud:
        if hook is not None:
            cloud.hook = lambda call: hook(call, cloud)
        story.tell(cloud)
        cloud.run()
        cloud.hook = None
        for execution_id, expected in story.expected.items():
            assert cloud.client.wait(execution_id, 0) == expected
            check_history(cloud, execution_id)
        assert not any(cloud.size(queue) for queue in MAPPINGS)
        return cloud.calls


def check_history(cloud: Cloud, execution_id: str) -> None:
    """Each answer is recorded once, and nothing that was asked for is without one."""
    record = cloud.backend.read_record(execution_id)
    assert record is not None
    answered: Counter[int] = Counter()
    for turn in cloud.backend.load_turns(record.key):
        for event in turn.inbound:
            if isinstance(event, ActivityCompleted | ActivityFailed | TimerFired):
                answered[event.seq] += 1
    assert all(times == 1 for times in answered.values()), answered


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", STORIES)
def test_dying_at_any_call_changes_nothing_but_the_time_it_takes(name: str, part: int) -> None:
    story, calls = STORIES[name], calls_of(name)
    for index, moment in points(name, part):
        struck: list[Call] = []

        def die(call: Call, cloud: Cloud, at: int = index, when: str = moment, struck: list[Call] = struck) -> None:
            if len(cloud.calls) == at + 1 and call.moment == when and not struck:
                struck.append(call)
                raise Crash

        try:
            told(story, die)
        except BaseException as error:
            error.add_note(f"after dying {moment} call {index}, {calls[index]}")
            raise
        assert [(call.function, call.operation) for call in struck] == [calls[index]]
        table[calls[index]] += 1


def test_the_sweep_reached_every_handler(capsys: pytest.CaptureFixture[str]) -> None:
    if not table:
        pytest.skip("the sweep did not run in this process")
    with capsys.disabled():
        print(
            f"\n\n{'all' if FULL else 'sampled'} crash points, each before and after the call: 0 lost, 0 recorded twice"
        )
        for handler in (*HANDLERS, *CLIENTS):
            lines = sorted((operation, count) for (function, operation), count in table.items() if function == handler)
            told = ", ".join(f"{operation} {count}" for operation, count in lines)
            print(f"  {handler:<19} {sum(count for _, count in lines):>4}  {told}")
        print(f"  {'all':<19} {table.total():>4}")
    assert {function for function, _ in table} == {*HANDLERS, *CLIENTS}
