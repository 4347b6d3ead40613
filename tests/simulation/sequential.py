"""Statements of programs that are one activity, or happen one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any

from durably.core.errors import ActivityError, ActivityTimeoutError, AttemptLostError
from durably.core.saga import SagaCompensationError
from tests.simulation import activities as acts
from tests.simulation import hearts
from tests.simulation.activities import answer
from tests.simulation.interpret import DAY, BrokenPromiseError, Interpreter, ProgramError, Statement, describe, promise
from tests.simulation.programs import Node

# --- activities and time ------------------------------------------------------------------------------------------


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


async def _learn(_: Interpreter, node: Node) -> Any:
    beating = asyncio.create_task(hearts.beat_for_ever(node.n, node.plan))
    try:
        await asyncio.sleep(4 * node.size)
    finally:
        beating.cancel()
    [result] = await asyncio.gather(beating, return_exceptions=True)
    promise(isinstance(result, asyncio.CancelledError), f"a cancelled activity: {result!r}")
    return node.kind


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


# --- one after the other ------------------------------------------------------------------------------------------


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
    current = asyncio.current_task()
    assert current is not None
    before = current.cancelling()
    try:
        return await it.run(node.parts[0])
    except BrokenPromiseError:
        raise
    except Exception as error:
        if isinstance(error, SagaCompensationError) and current.cancelling() > before:
            raise asyncio.CancelledError from error  # which the failure took the place of
        return f"caught {describe(error)}"


def _calls(call: Callable[[Node], Coroutine[Any, Any, Any]]) -> Statement:
    return lambda _, node: call(node)


SEQUENTIAL: dict[str, Statement] = {
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
    "ask_alive": _calls(lambda node: hearts.ask_alive(node.n, node.plan)),
    "beat": _calls(lambda node: hearts.beat(node.n, node.plan)),
    "beat_once": _calls(lambda node: hearts.beat_once(node.n, node.plan)),
    "learn": _learn,
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
}
