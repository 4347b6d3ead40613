"""Statements of programs that deal with others: signals, updates, children, further runs, other versions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from durably.core.channels import Signal, Update
from durably.core.errors import ChildError, SignalError
from durably.core.others import ChildHandle
from tests.simulation import activities as acts
from tests.simulation.activities import answer
from tests.simulation.interpret import DAY, Interpreter, ProgramError, Statement, interpret, promise
from tests.simulation.programs import Node, child_name, signals

HELLO = Signal[int]("hello")
ORDER = Signal[int]("order")
_AGAIN_S = 200


@asynccontextmanager
async def _asking(name: str, node: Node, what: str) -> AsyncIterator[None]:
    """Ask the outside world for signals or updates, again and again: a fork gets none that the original asked for."""

    async def ask() -> None:
        while True:
            await acts.invite(name, node.n, node.size, what)
            await asyncio.sleep(_AGAIN_S)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        asking.cancel()


# --- signals ------------------------------------------------------------------------------------------------------


async def _receive(it: Interpreter, node: Node) -> Any:
    name = it.channel(node)
    async with _asking(name, node, node.plan):
        got = await _RECEIVERS[node.plan](it, Signal[int](name), node.size)
    promise(sorted(got) == signals(node), f"{name} received {got}")
    return node.kind


async def _one_by_one(it: Interpreter, signal: Signal[int], count: int) -> list[int]:
    return [await it.ctx.receive(signal) for _ in range(count)]


async def _together(it: Interpreter, signal: Signal[int], count: int) -> list[int]:
    return await asyncio.gather(*(it.ctx.receive(signal) for _ in range(count)))


async def _iterated(it: Interpreter, signal: Signal[int], count: int) -> list[int]:
    got: list[int] = []
    async for value in it.ctx.signals(signal):
        got.append(value)
        if len(got) == count:
            break
    return got


async def _impatient(it: Interpreter, signal: Signal[int], count: int) -> list[int]:
    got: list[int] = []
    pause = 0.5
    while len(got) < count:
        pause *= 2
        try:
            async with asyncio.timeout(pause):
                got.append(await it.ctx.receive(signal))
        except TimeoutError:
            continue
    return got


async def _buffered(it: Interpreter, signal: Signal[int], count: int) -> list[int]:
    await asyncio.sleep(30)
    return await _one_by_one(it, signal, count)


async def _raced(it: Interpreter, signal: Signal[int], count: int) -> list[int]:
    """More wait than there is for; the others are cancelled, and lose nothing."""
    tasks = [asyncio.create_task(it.ctx.receive(signal)) for _ in range(count + 1)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    got = [result for result in results if isinstance(result, int)]
    return got + await _one_by_one(it, signal, count - len(got))


_RECEIVERS = {
    "one by one": _one_by_one,
    "together": _together,
    "iterated": _iterated,
    "impatient": _impatient,
    "buffered": _buffered,
    "raced": _raced,
    "unreadable": _one_by_one,
}


async def _post(it: Interpreter, node: Node) -> Any:
    """Ask for signals that `fetch` receives, maybe in another run."""
    await acts.invite(_box(it, node), node.n, node.size, node.plan)
    if node.plan == "buffered":
        await asyncio.sleep(60)
    return node.kind


async def _fetch(it: Interpreter, node: Node) -> Any:
    async with _asking(_box(it, node), node, node.plan):
        got = await _one_by_one(it, Signal[int](_box(it, node)), node.size)
    promise(sorted(got) == signals(node), f"{_box(it, node)} received {got}")
    return node.kind


def _box(it: Interpreter, node: Node) -> str:
    return f"{it.program}.box.{node.n}"


async def _greeted(it: Interpreter, node: Node) -> Any:
    """Receive what came with the start."""
    promise(await it.ctx.receive(HELLO) == answer(0), "greeted with something else")
    return node.kind


async def _tell(it: Interpreter, node: Node) -> Any:
    signal = Signal[int](it.channel(node))
    me = it.ctx.execution_id
    match node.plan:
        case "self":
            receiving = asyncio.create_task(it.ctx.receive(signal))
            await it.ctx.signal(me, signal, node.n)
            promise(await receiving == node.n, "another signal than the one that was sent")
        case "parent":
            try:
                await it.ctx.signal(me.rpartition("/")[0] or me, signal, node.n)
            except SignalError as error:
                promise(error.failure.matches("ExecutionClosedError"), f"{error}")
        case _:
            try:
                await it.ctx.signal("nobody", signal, node.n)
            except SignalError as error:
                promise(error.failure.matches("ExecutionNotFoundError"), f"{error}")
            else:
                promise(False, "a signal reached nobody")
    return node.kind


# --- updates ------------------------------------------------------------------------------------------------------


async def _updated(it: Interpreter, node: Node) -> Any:
    name = it.channel(node)
    done = asyncio.Event()
    handled: list[int] = []

    def validate(value: int) -> None:
        if value < 0:
            raise ValueError("negative")

    def at_once(value: int) -> int:
        handled.append(value)
        if value % 2:
            raise ProgramError(value)
        done.set()
        return answer(value)

    async def slowly(value: int) -> int:
        if node.plan == "slowly":
            await asyncio.sleep(10)
        promise(await acts.work(value) == answer(value), "wrong answer in the handler of an update")
        return at_once(value)

    handle: Callable[[int], Any] = at_once if node.plan == "at once" else slowly
    it.ctx.on_update(Update[int, int](name), handle, validate=validate)
    async with _asking(name, node, "update"):
        await done.wait()
    promise(min(handled) >= 0, f"{handled} passed the validator")
    return node.kind


# --- children -----------------------------------------------------------------------------------------------------


async def _child(it: Interpreter, node: Node) -> Any:  # noqa: C901, PLR0912  # one plan after the other
    name = child_name(it.program, node)
    match node.plan:
        case "awaited":
            return json.loads(await interpret(name))[0]
        case "handle":
            handle = await interpret.start(name)
            promise(handle.execution_id.startswith(f"{it.ctx.execution_id}/"), handle.execution_id)
            return json.loads(await handle)[0]
        case "patient":
            return json.loads(await _shielded(await interpret.start(name)))[0]
        case "chosen":
            chosen = interpret.options(execution_id=f"chosen-{name}", id_reuse="allow_if_closed")
            try:
                value = json.loads(await chosen(name))[0]
            except ChildError as error:
                promise(error.failure.matches("ExecutionExistsError"), f"{error}")
            else:
                promise(value == "child program", f"{name} returned {value}")
        case "taken":
            root = it.ctx.execution_id.partition("/")[0].partition("@")[0]
            await interpret.options(execution_id=root)(name)
        case "cancelled":
            handle = await interpret.start(name)
            if node.size > 1:
                await asyncio.sleep(node.size - 1)
            handle.cancel()
            handle.cancel()
            await _raises_cancelled(handle)
        case "obeys":
            await _command(await interpret.start(name), node.n)
        case "hurried":
            try:
                await asyncio.wait_for(interpret(name), node.size)
            except TimeoutError:
                return node.kind
            promise(False, "a child that lingers returned")
        case "forgotten":
            asyncio.create_task(interpret(name))
            await asyncio.sleep(0)
        case policy:
            close: Any = policy.partition(" ")[2]
            await interpret.options(parent_close=close).start(name)
    return node.kind


async def _shielded(handle: ChildHandle[str]) -> str:
    """Wait a while, and again; the child is not to notice."""

    async def ended() -> str:
        return await handle

    ending = asyncio.create_task(ended())
    while not ending.done():
        await asyncio.wait([ending], timeout=100)
    return ending.result()


async def _raises_cancelled(handle: ChildHandle[str]) -> None:
    async def ended() -> str:
        return await handle

    [result] = await asyncio.gather(ended(), return_exceptions=True)
    promise(isinstance(result, asyncio.CancelledError), f"a child that was cancelled: {result!r}")


async def _command(handle: ChildHandle[str], n: int) -> None:
    """Signal a child until it ends: after a reset it is another one, which got no signal of the earlier run."""

    async def ended() -> str:
        return await handle

    ending = asyncio.create_task(ended())
    while not ending.done():
        try:
            await handle.signal(ORDER, n)
        except SignalError as error:  # of a fork, the child is only about to be there
            promise(any(map(error.failure.matches, ("ExecutionClosedError", "ExecutionNotFoundError"))), f"{error}")
        await asyncio.wait([ending], timeout=500)
    promise(json.loads(ending.result()) == [answer(n)], "the child misunderstood")


async def _obey(it: Interpreter, node: Node) -> Any:
    return answer(await it.ctx.receive(ORDER))


async def _linger(it: Interpreter, node: Node) -> Any:
    await asyncio.sleep(300 * DAY)
    return node.kind


async def _report(it: Interpreter, node: Node) -> Any:
    await acts.work(node.n)
    return "child program"


# --- further runs, other versions -----------------------------------------------------------------------------------


async def _anew(it: Interpreter, node: Node) -> Any:
    """Go on in another run, with the parts still open."""
    it.spawn_all(node)
    if node.size > 1:
        await asyncio.sleep((node.size - 1) / 2)
    await it.ctx.continue_as_new(it.program, json.dumps([*it.results, node.kind]))


async def _patched(it: Interpreter, node: Node) -> Any:
    """What another version does differently, guarded by a patch, which the version after it needs no more."""
    patch = it.channel(node)
    if it.deployed > 1:
        it.ctx.deprecate_patch(patch)
    new = it.deployed > 1 or (it.deployed and it.ctx.patched(patch))
    return await (acts.work_async(node.n) if new else acts.work(node.n))


async def _status(it: Interpreter, node: Node) -> Any:
    it.ctx.set_status([node.n, it.channel(node)])
    return node.kind


CONVERSING: dict[str, Statement] = {
    "receive": _receive,
    "post": _post,
    "fetch": _fetch,
    "greeted": _greeted,
    "tell": _tell,
    "updated": _updated,
    "child": _child,
    "obey": _obey,
    "linger": _linger,
    "report": _report,
    "anew": _anew,
    "patched": _patched,
    "status": _status,
}
