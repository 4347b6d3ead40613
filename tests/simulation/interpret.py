"""The one orchestrator of the simulation: it interprets a program statement by statement."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, TypeAlias

from durably.api.orchestrator import orchestrator
from durably.core.channels import Query
from durably.core.context import Context
from durably.core.errors import ActivityError, ChildError, PayloadError
from durably.core.failures import Failure
from tests.simulation.programs import Node

DAY = 86_400.0
FINISHED = Query[int]("finished")
MEDDLING = Query[int]("meddling")
PROGRAMS: dict[str, Node] = {}
DEPLOYED: list[str] = []
BROKEN: list[str] = []


class ProgramError(Exception):
    """Raised by programs on purpose."""


class BrokenPromiseError(Exception):
    """A program saw what it must never see."""


@orchestrator
async def interpret(ctx: Context, program: str, done: str = "[]") -> str:
    """Run the program of that name, of which earlier runs did a part; its result as JSON."""
    it = Interpreter(ctx, program, json.loads(done))
    for part in PROGRAMS[program].parts[len(it.results) :]:
        it.results.append(await it.run(part))
    return json.dumps(it.results)


def describe(error: BaseException) -> str:
    """An error in the words of `programs.expected`."""
    if isinstance(error, ChildError):
        return f"child {describe_failure(error.failure)}"
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
    if kind == "ChildError" and failure.cause is not None:
        return f"child {describe_failure(failure.cause)}"
    if kind == "ActivityError" and failure.cause is not None:
        words = failure.message.split()  # "activity NAME failed at attempt N: ..."
        return f"{words[1]} {words[5].rstrip(':')} {failure.cause.type}"
    if kind.endswith("ExceptionGroup") or kind == "SagaCompensationError":
        return f"[{', '.join(sorted(describe_failure(member) for member in failure.members))}]"
    if kind == "ProgramError":
        return f"ProgramError {failure.message}"
    if kind in {"PayloadError", "ExecutionExistsError"}:
        return kind
    return f"{kind}: {failure.message}"


def program_of(input_: str) -> Node:
    """The program that an execution was started with."""
    name: str = json.loads(input_)["program"]
    return PROGRAMS[name]


class Interpreter:
    """Runs programs on behalf of one execution.

    Attributes:
        results: of the program's outermost statements, those of earlier runs included.
        deployed: how many deployments the code is later than the first version.
    """

    def __init__(self, ctx: Context, program: str, results: list[Any]) -> None:
        self.ctx = ctx
        self.program = program
        self.results = results
        self.latest: datetime = ctx.now()
        self.deployed = len(DEPLOYED)
        self._visits: Counter[int] = Counter()
        ctx.on_query(FINISHED, lambda: len(self.results))
        ctx.on_query(MEDDLING, self._meddle)

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

    def channel(self, node: Node) -> str:
        """A name that nothing else uses, not even another visit of the same statement."""
        self._visits[node.n] += 1
        return f"{self.program}.{node.n}.{self._visits[node.n]}"

    def _meddle(self) -> int:
        self.ctx.set_status("changed by a query")
        return 0


def promise(kept: bool, otherwise: str) -> None:
    if not kept:
        raise BrokenPromiseError(otherwise)


def always(kept: bool, otherwise: str) -> None:
    """A promise that is kept also where nobody learns how it ended: in what is cancelled, in turns that are lost."""
    if not kept:
        BROKEN.append(otherwise)
        raise BrokenPromiseError(otherwise)


Statement: TypeAlias = Callable[[Interpreter, Node], Coroutine[Any, Any, Any]]
STATEMENTS: dict[str, Statement] = {}  # filled by `statements`
