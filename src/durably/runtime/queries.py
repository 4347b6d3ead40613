"""Answering queries: a throwaway replay of what is stored, asked and given up."""

from __future__ import annotations

from durably.api.registry import Registry
from durably.core.errors import QueryError, Stall, UnknownOrchestratorError
from durably.core.execution import Execution
from durably.core.replay import replay
from durably.ports.backend import Backend
from durably.runtime.start import existing_record


def answer_query(backend: Backend, registry: Registry, execution_id: str, name: str) -> str:
    """The answer of an execution, open or closed, as JSON text.

    Raises:
        ExecutionNotFoundError: there is no such execution.
        UnknownOrchestratorError: this process does not have its code.
        QueryError: it has no handler of that name, the handler raised, or the code does not fit the history.
    """
    record = existing_record(backend, execution_id)
    program = registry.program(record.orchestrator)
    if program is None:
        raise UnknownOrchestratorError(
            f"The query is answered by the code of {record.orchestrator!r}, which this process does not have."
        )
    execution = Execution(record.key, program, registry.codec)
    try:
        turns = backend.load_turns(record.key)
        replay(execution, turns)
        if not execution.applied:  # nobody has taken the first turn yet; what it will do with its start is known
            execution.apply(turns[0].inbound[0])
        return execution.handlers.answer(name)
    except Stall as stall:
        raise QueryError(f"The code that is here cannot replay {execution_id}: {stall}") from stall
    finally:
        execution.close()
