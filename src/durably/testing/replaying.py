"""Replaying recorded histories against today's code: from exported files, from a store, and after each turn of a test.

Nothing is stored and no activity runs: the orchestrator is told what it was told, and must ask for the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from durably.api.orchestrator import Orchestrator
from durably.api.registry import Registry
from durably.codec.exports import ExportedHistory, ExportedRun, decode_export, exported
from durably.codec.payloads import PydanticCodec
from durably.core.errors import MissingDefinitionError
from durably.core.execution import Execution
from durably.core.history import Turn
from durably.core.keys import RunKey
from durably.core.replay import RunState
from durably.core.replay import replay as replay_applied
from durably.ports.backend import Backend
from durably.ports.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A history that today's code agrees with.

    Attributes:
        events: inbound events that it was replayed through.
    """

    execution_id: str
    orchestrator: str
    events: int


def replay(
    history: str | PathLike[str], orchestrators: Orchestrator[..., Any] | Iterable[Orchestrator[..., Any]], /
) -> Replayed:
    """Replay the file of an exported history against today's orchestrators.

    Raises:
        NonDeterminismError: the code asks for something else than it did; the message shows both sides.
        Stall: the code cannot take a turn of the history for another reason.
        ClientError: the file is no exported history.
    """
    known = [orchestrators] if isinstance(orchestrators, Orchestrator) else list(orchestrators)
    exported = decode_export(Path(history).read_text(encoding="utf-8"))
    return replay_history(exported, Registry(known, codec=PydanticCodec()))


def replay_history(history: ExportedHistory, registry: Registry) -> Replayed:
    """Replay each run of a history, and apply the events that wait in the current one as its next turn would.

    Raises as `replay`.
    """
    events = sum(
        replay_turns(run.key, history.orchestrator, run.turns, registry, go_on=run is history.runs[-1])
        for run in history.runs
    )
    return Replayed(execution_id=history.execution_id, orchestrator=history.orchestrator, events=events)


def stored_history(backend: Backend, record: Record, *, current_only: bool = False) -> ExportedHistory:
    """A stored execution with all of its runs, or without those that are over."""
    first = record.run if current_only else 1
    keys = [RunKey(record.execution_id, record.gen, number) for number in range(first, record.run + 1)]
    return exported(record, (ExportedRun(key=key, turns=tuple(backend.load_turns(key))) for key in keys))


def replay_turns(
    run: RunKey,
    orchestrator: str,
    turns: Sequence[Turn],
    registry: Registry,
    *,
    between: Callable[[], object] | None = None,
    go_on: bool = False,
) -> int:
    """Replay turns from scratch; how many events that were.

    Args:
        run: what the turns belong to.
        orchestrator: persisted name.
        turns: all of the run, from the first.
        registry: holds the orchestrator.
        between: called after each turn.
        go_on: then apply the events that are stored and not applied, live, as the next turn would: those of a stalled
            execution, or its end by an operator.

    Raises:
        NonDeterminismError, MissingDefinitionError, Stall: as `replay`.
    """
    program = registry.program(orchestrator)
    if program is None:
        known = ", ".join(registry.orchestrator_names) or "none"
        raise MissingDefinitionError(
            f"The history of {run.execution_id} is one of the orchestrator {orchestrator!r}, which was not given; "
            f"there are: {known}. Give it too, or keep the old name in aliases=[...]."
        )
    with closing(Execution(run, program, registry.codec)) as execution:
        if between is None:
            replay_applied(execution, turns)
        else:
            for number in range(1, len(turns) + 1):
                replay_applied(execution, turns[:number])
                between()
        for event in _waiting(turns) if go_on else ():
            execution.apply(event)
        return execution.applied


def _waiting(turns: Iterable[Turn]) -> list[Any]:
    """The events that are stored and not applied."""
    state = RunState()
    for turn in turns:
        state.add(turn)
    return list(state.waiting)
