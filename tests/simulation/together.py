"""Statements of programs whose steps belong together: sagas, maps over many items, races."""

from __future__ import annotations

import asyncio
from typing import Any

from durably.core.errors import ActivityError
from durably.core.saga import SagaCompensationError
from tests.simulation import activities as acts
from tests.simulation.activities import answer
from tests.simulation.interpret import Interpreter, ProgramError, Statement, always
from tests.simulation.programs import Node, expected

# --- sagas --------------------------------------------------------------------------------------------------------


async def _saga(it: Interpreter, node: Node) -> Any:
    name = f"{it.channel(node)}.{node.plan}"
    noted: list[int] = []
    begun: list[int] = []
    ended: list[int] = []
    saga = it.ctx.saga(parallel=node.plan == "parallel")

    async def undo(step: int) -> None:
        always(node.plan == "parallel" or begun == ended, f"{name}: {step} is undone while {begun} are")
        begun.append(step)
        try:
            await acts.undo(name, step, fails=node.plan == "undo fails" and step == node.size - 1)
        finally:
            ended.append(step)

    try:
        async with saga:
            for step in range(node.size):
                saga.compensate(undo, step)
                noted.append(step)
                await acts.do(name, step)
            value = await it.run(node.parts[0])
            if node.plan == "half":
                await acts.failing(node.n)
            if node.plan != "kept":
                raise ProgramError(node.n)
    except (Exception, asyncio.CancelledError) as error:
        always(begun == noted[::-1], f"{name} did {noted} and undid {begun} after {error!r}")
        always(len(ended) == len(begun), f"{name} went on before {begun} were undone: {ended}")
        failed = node.plan == "undo fails" and len(noted) == node.size
        always(failed == isinstance(error, SagaCompensationError), f"{name}, in which {noted} were done: {error!r}")
        raise
    always(not begun, f"{name} was kept, and undid {begun}")
    return value


# --- many items ---------------------------------------------------------------------------------------------------


async def _map(it: Interpreter, node: Node) -> Any:
    inside = 0
    most = node.size if node.plan == "bounded" else len(node.parts) + 2

    async def each(index: int) -> Any:
        nonlocal inside
        inside += 1
        always(inside <= most, f"{inside} items at a time, {most} were allowed")
        try:
            value = await (it.run(node.parts[index]) if index < len(node.parts) else acts.work(node.n))
        finally:
            inside -= 1
        if index in _FAILING[node.plan]:
            raise ProgramError(index)
        return value

    items = range(len(node.parts) + 2)
    wanted = [*map(expected, node.parts), answer(node.n), answer(node.n)]
    match node.plan:
        case "bounded":
            results: list[Any] = await it.ctx.map(each, items, concurrency=node.size)
        case "tolerated":
            results = await it.ctx.map(each, items, tolerated_failures=2 if node.size % 2 else 1.0)
            wanted[:2] = ["failed", "failed"]
        case plan:
            try:
                results = await it.ctx.map(
                    each, items, concurrency=node.size, tolerated_failures=int(plan == "too many")
                )
            except (ProgramError, ExceptionGroup) as error:
                errors: tuple[Any, ...] = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
                always((plan == "too many") == isinstance(error, ExceptionGroup), f"{error!r}")
                always(len(errors) > (plan == "too many") and not inside, f"{inside} items go on after {errors}")
                return node.kind
            always(False, f"too many failures are tolerated: {results}")
    always([_or_failed(value) for value in results] == wanted, f"{results} instead of {wanted}")
    return node.kind


_FAILING = {"bounded": (), "tolerated": (0, 1), "too many": (0, 1, 2), "not one": (0, 1)}


def _or_failed(value: Any) -> Any:
    return "failed" if isinstance(value, ProgramError | ActivityError) else value


async def _first(it: Interpreter, node: Node) -> Any:
    over = 0

    async def run(part: Node) -> Any:
        nonlocal over
        try:
            return await it.run(part)
        finally:
            over += 1

    value = await it.ctx.race(*map(run, node.parts))
    always(over == len(node.parts), f"the race went on: {over} of {len(node.parts)} are over")
    always(value in [expected(part) for part in node.parts], f"nobody can have won with {value}")
    return node.kind


TOGETHER: dict[str, Statement] = {"saga": _saga, "map": _map, "first": _first}
