"""The one orchestrator of the simulation: it interprets a program statement by statement."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

from durably.api.orchestrator import orchestrator
from durably.api.registry import Registry
from durably.codec.payloads import PydanticCodec
from durably.core.context import Context
from durably.core.errors import ActivityError, ActivityTimeoutError, AttemptLostError, PayloadError
from durably.core.failures import Failure
from tests.simulation import activities as acts
from tests.simulation.activities import ACTIVITIES, answer
from tests.simulation.programs import Node, expected

DAY = 86_400.0
PROGRAMS: dict[str, Node] = {}


class ProgramError(Exception):
    """Raised by programs on purpose."""


class BrokenPromiseError(Exception):
    """A program saw what it must never see."""


@orchestrator
async def interpret(ctx: Context, program: str) -> str:
    """Run the program of that name; its result as JSON."""
    return json.dumps(await Interpreter(ctx).run(PROGRAMS[program]))


def describe(error: BaseException) -> str:
    """An error in the words of `programs.expected`."""
    if isinstance(error, ActivityError):
        return f"{error.activity} {error.attempt} {error.type}"
    if isinstance(error, BaseExceptionGroup):
        return f"[{', '.join(sorted(describe(member) for member in error.exceptions))}]"
    if isinstance(error, ProgramError):
        return f"ProgramError {error}"
    if isinstance(error, PayloadError):
        return "PayloadError"
    return f"{type(error).__name__}: {error}"


def describe_failure(failure: Failure) -> str:
    """The failure of an execution in the same words."""
    kind = failure.type.rpartition(".")[2]
    if kind == "ActivityError" and failure.cause is not None:
        words = failure.message.split()  # "activity NAME failed at attempt N: ..."
        return f"{words[1]} {words[5].rstrip(':')} {failure.cause.type}"
    if kind.endswith("ExceptionGroup"):
        return f"[{', '.join(sorted(describe_failure(member) for member in failure.members))}]"
    if kind == "ProgramError":
        return f"ProgramError {failure.message}"
    if kind == "PayloadError":
        return kind
    return f"{kind}: {failure.message}"


class Interpreter:
    """Runs programs on behalf of one execution."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.latest: datetime = ctx.now()

    async def run(self, node: Node) -> Any:
        """What the statement returns."""
        result = await STATEMENTS[node.kind](self, node)
        now = self.ctx.now()
        promise(now >= self.latest, f"time went back from {self.latest} to {now}")
        self.latest = now
        return result

    def spawn(self, node: Node) -> asyncio.Task[Any]:
        return asyncio.create_task(self.run(node))

    def spawn_all(self, node: Node) -> list[asyncio.Task[Any]]:
        return [self.spawn(part) for part in node.parts]


def promise(kept: bool, otherwise: str) -> None:
    if not kept:
        raise BrokenPromiseError(otherwise)


# --- statements: activities and time ------------------------------------------------------------------------


async def _by_name(it: Interpreter, node: Node) -> Any:
    return await it.ctx.call("work", returns=int, n=node.n)


async def _refused(_: Interpreter, node: Node) -> Any:
    wrong: Any = 1j
    return await acts.work(wrong)


async def _missing(it: Interpreter, node: Node) -> Any:
    return await it.ctx.call("nobody", returns=int, n=node.n)


async def _settled(node: Node, call: Awaitable[int], *allowed: type[BaseException]) -> Any:
    """Faults decide whether the call succeeds, never what it returns."""
    try:
        value = await call
        promise(value == answer(node.n), f"{node.kind} {node.n} returned {value}")
    except ActivityError as error:
        promise(any(error.matches(cls) for cls in allowed), f"{node.kind} {node.n} raised {error}")
    return node.kind


async def _once(_: Interpreter, node: Node) -> Any:
    failures = node.size - 1
    return await _settled(node, acts.once(node.n, failures), AttemptLostError, *((OSError,) if failures else ()))


async def _hurried(_: Interpreter, node: Node) -> Any:
    return await _settled(node, acts.hurried(node.n), ActivityTimeoutError, OSError)


async def _ask_again(_: Interpreter, node: Node) -> Any:
    return await _settled(node, acts.ask_again(node.n, node.plan), ActivityTimeoutError)


async def _clock(it: Interpreter, node: Node) -> Any:
    now = it.ctx.now()
    await acts.work(node.n)
    promise(it.ctx.now() >= now, "time went back")
    return node.kind


async def _drawn(it: Interpreter, node: Node) -> Any:
    drawn = it.ctx.random.randrange(1_000_000)
    promise(await acts.work(drawn) == answer(drawn), "the draw changed")
    promise(it.ctx.uuid4().version == 4, "not a UUID of version 4")
    return node.kind


async def _sleep(it: Interpreter, node: Node) -> Any:
    before = it.ctx.now()
    await asyncio.sleep(node.size / 1000)
    promise(it.ctx.now() - before >= timedelta(milliseconds=node.size), "woken too early")
    return node.kind


async def _yield(_: Interpreter, node: Node) -> Any:
    await asyncio.sleep(0)
    return node.kind


async def _raise(_: Interpreter, node: Node) -> Any:
    raise ProgramError(node.n)


# --- statements: one after the other --------------------------------------------------------------------------


async def _seq(it: Interpreter, node: Node) -> Any:
    return [await it.run(part) for part in node.parts]


async def _helper(it: Interpreter, node: Node) -> Any:
    async def nested(depth: int) -> Any:
        return await nested(depth - 1) if depth else await it.run(node.parts[0])

    return await nested(node.size)


async def _values(it: Interpreter, node: Node) -> AsyncIterator[Any]:
    try:
        for part in node.parts:
            yield await it.run(part)
    finally:
        it.latest = max(it.latest, it.ctx.now())


async def _generator(it: Interpreter, node: Node) -> Any:
    return [value async for value in _values(it, node)]


async def _abandoned(it: Interpreter, node: Node) -> Any:
    async for value in _values(it, node):
        return value
    return None


async def _cleanup(it: Interpreter, node: Node) -> Any:
    result: list[Any] = []
    try:
        result.append(await it.run(node.parts[0]))
    finally:
        promise(await acts.work(node.n) == answer(node.n), "wrong answer in a clean-up")
        result.append(node.kind)
    return result


async def _in_time(it: Interpreter, node: Node) -> Any:
    async with asyncio.timeout(30 * DAY):
        return await it.run(node.parts[0])


async def _waited(it: Interpreter, node: Node) -> Any:
    return await asyncio.wait_for(it.run(node.parts[0]), 30 * DAY)


async def _loop(it: Interpreter, node: Node) -> Any:
    return [await it.run(node.parts[0]) for _ in range(node.size)]


async def _attempt(it: Interpreter, node: Node) -> Any:
    try:
        return await it.run(node.parts[0])
    except BrokenPromiseError:
        raise
    except Exception as error:
        return f"caught {describe(error)}"


# --- statements: at the same time ------------------------------------------------------------------------------


async def _gather(it: Interpreter, node: Node) -> Any:
    return await asyncio.gather(*(it.run(part) for part in node.parts))


async def _exceptions(it: Interpreter, node: Node) -> Any:
    error = ProgramError(node.n)

    async def fail() -> Any:
        raise error

    failing = asyncio.create_task(fail())
    failing.add_done_callback(_heard)
    *results, last = await asyncio.gather(*(it.run(part) for part in node.parts), failing, return_exceptions=True)
    promise(last is error, f"gather returned {last!r}")
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def _heard(task: asyncio.Task[Any]) -> None:
    """Should the gather be abandoned at the very end, nobody else asks for the error."""
    if not task.cancelled():
        task.exception()


async def _group(it: Interpreter, node: Node) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(it.run(part)) for part in node.parts]
    return [task.result() for task in tasks]


async def _group_fails(it: Interpreter, node: Node) -> Any:
    async def fail() -> None:
        await asyncio.sleep(node.size / 1000)
        raise ProgramError(node.n)

    async with asyncio.TaskGroup() as group:
        for part in node.parts:
            group.create_task(it.run(part))
        group.create_task(fail())


async def _hanging(it: Interpreter, node: Node) -> None:
    """The parts, and three waits that nobody ends."""
    await asyncio.gather(
        *(it.run(part) for part in node.parts),
        asyncio.Event().wait(),
        asyncio.sleep(300 * DAY),
        acts.ask_for_ever(node.n, "never"),
    )


async def _timeout(it: Interpreter, node: Node) -> Any:
    try:
        async with asyncio.timeout(node.size / 1000):
            await _hanging(it, node)
    except TimeoutError:
        return node.kind
    return "no timeout"


async def _wait_for(it: Interpreter, node: Node) -> Any:
    try:
        await asyncio.wait_for(_hanging(it, node), node.size / 1000)
    except TimeoutError:
        return node.kind
    return "no timeout"


async def _shield(it: Interpreter, node: Node) -> Any:
    return await asyncio.shield(it.run(node.parts[0]))


async def _outlived(it: Interpreter, node: Node) -> Any:
    task = it.spawn(node.parts[0])
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(task), node.size / 1000)
    return await task


async def _cancel(it: Interpreter, node: Node) -> Any:
    current = asyncio.current_task()
    assert current is not None
    before = current.cancelling()  # Python 3.11 leaves it at 1 after a TaskGroup that failed
    tasks = it.spawn_all(node)
    await (acts.work(node.n) if node.size % 2 else asyncio.sleep(node.size / 1000))
    for task in tasks:
        task.cancel("enough")
    for task, part in zip(tasks, node.parts, strict=True):
        try:
            value = await task
        except asyncio.CancelledError:
            if current.cancelling() > before:
                raise
        else:
            promise(value == expected(part), f"{part} returned {value}")
    return node.kind


async def _race(it: Interpreter, node: Node) -> Any:
    tasks = it.spawn_all(node)
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    promise(bool(done), "nothing was completed first")
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task, part in zip(tasks, node.parts, strict=True):
        if task in done:
            promise(task.result() == expected(part), f"{part} returned {task.result()}")
    return node.kind


async def _completed(it: Interpreter, node: Node) -> Any:
    return sorted([await task for task in asyncio.as_completed(it.spawn_all(node))], key=repr)


async def _wait(it: Interpreter, node: Node) -> Any:
    tasks = it.spawn_all(node)
    done, pending = await asyncio.wait(tasks)
    promise(not pending and len(done) == len(tasks), "asyncio.wait left something undone")
    return [task.result() for task in tasks]


async def _event(it: Interpreter, node: Node) -> Any:
    event = asyncio.Event()

    async def part(index: int) -> Any:
        if index:
            await event.wait()
        try:
            return await it.run(node.parts[index])
        finally:
            event.set()

    return await asyncio.gather(*map(part, range(len(node.parts))))


async def _one_at_a_time(it: Interpreter, node: Node, guard: asyncio.Lock | asyncio.Semaphore, most: int) -> Any:
    inside = 0

    async def part(index: int) -> Any:
        nonlocal inside
        async with guard:
            inside += 1
            promise(inside <= most, f"{inside} tasks hold what {most} may hold")
            try:
                return await it.run(node.parts[index])
            finally:
                inside -= 1

    return await asyncio.gather(*map(part, range(len(node.parts))))


async def _lock(it: Interpreter, node: Node) -> Any:
    return await _one_at_a_time(it, node, asyncio.Lock(), 1)


async def _semaphore(it: Interpreter, node: Node) -> Any:
    return await _one_at_a_time(it, node, asyncio.Semaphore(2), 2)


async def _condition(it: Interpreter, node: Node) -> Any:
    condition = asyncio.Condition()
    finished = 0

    async def part(index: int) -> Any:
        nonlocal finished
        value = await it.run(node.parts[index])
        async with condition:
            finished += 1
            condition.notify_all()
        return value

    async def last() -> str:
        async with condition:
            await condition.wait_for(lambda: finished == len(node.parts))
        return node.kind

    return await asyncio.gather(*map(part, range(len(node.parts))), last())


async def _queue(it: Interpreter, node: Node) -> Any:
    queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)

    async def produce(part: Node) -> None:
        await queue.put(await it.run(part))

    async with asyncio.TaskGroup() as group:
        for part in node.parts:
            group.create_task(produce(part))
        taken = [await queue.get() for _ in node.parts]
    return sorted(taken, key=repr)


async def _background(it: Interpreter, node: Node) -> Any:
    it.spawn_all(node)
    await asyncio.sleep(0)
    return node.kind


Statement = Callable[[Interpreter, Node], Coroutine[Any, Any, Any]]


def _calls(call: Callable[[Node], Coroutine[Any, Any, Any]]) -> Statement:
    return lambda _, node: call(node)


STATEMENTS: dict[str, Statement] = {
    "work": _calls(lambda node: acts.work(node.n)),
    "work_async": _calls(lambda node: acts.work_async(node.n)),
    "work_here": _calls(lambda node: acts.work_here(node.n)),
    "flaky": _calls(lambda node: acts.flaky(node.n, node.size)),
    "failing": _calls(lambda node: acts.failing(node.n)),
    "hopeless": _calls(lambda node: acts.hopeless(node.n)),
    "refusing": _calls(lambda node: acts.refusing(node.n)),
    "patient": _calls(lambda node: acts.patient(node.n)),
    "unserialisable": _calls(lambda node: acts.unserialisable(node.n)),
    "overrun": _calls(lambda node: acts.overrun(node.n)),
    "ask": _calls(lambda node: acts.ask(node.n, node.plan)),
    "ask_for_ever": _calls(lambda node: acts.ask_for_ever(node.n, node.plan)),
    "ask_briefly": _calls(lambda node: acts.ask_briefly(node.n, node.plan)),
    "ask_again": _ask_again,
    "by_name": _by_name,
    "refused": _refused,
    "missing": _missing,
    "once": _once,
    "hurried": _hurried,
    "clock": _clock,
    "drawn": _drawn,
    "sleep": _sleep,
    "yield": _yield,
    "raise": _raise,
    "seq": _seq,
    "helper": _helper,
    "generator": _generator,
    "abandoned": _abandoned,
    "cleanup": _cleanup,
    "in_time": _in_time,
    "waited": _waited,
    "loop": _loop,
    "attempt": _attempt,
    "gather": _gather,
    "exceptions": _exceptions,
    "group": _group,
    "group_fails": _group_fails,
    "timeout": _timeout,
    "wait_for": _wait_for,
    "shield": _shield,
    "outlived": _outlived,
    "cancel": _cancel,
    "race": _race,
    "completed": _completed,
    "wait": _wait,
    "event": _event,
    "lock": _lock,
    "semaphore": _semaphore,
    "condition": _condition,
    "queue": _queue,
    "background": _background,
}

REGISTRY = Registry([interpret], ACTIVITIES, codec=PydanticCodec(verify="always"), code_version="simulated")
