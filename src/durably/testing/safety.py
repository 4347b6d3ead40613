"""`assert_replay_safe`: one execution, crashed at every event, and its history replayed under other circumstances."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any, ParamSpec, TypeVar

from durably.api.orchestrator import Orchestrator
from durably.api.registry import Registry
from durably.codec.exports import ExportedHistory, encode_export
from durably.core.errors import ConfigurationError, NonDeterminismError
from durably.testing.replaying import replay_turns

P = ParamSpec("P")
R = TypeVar("R")

_TIMEOUT_S = 120


def assert_replay_safe(orchestrator: Orchestrator[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """`Environment.assert_replay_safe` in an environment of its own, where all activities run for real.

    Raises:
        NonDeterminismError: a replay asked for something else.
        ExecutionFailedError: the execution failed.
    """
    from durably.testing.environment import Environment

    with Environment() as env:
        return env.assert_replay_safe(orchestrator, *args, **kwargs)


def check_here(history: ExportedHistory, registry: Registry) -> None:
    """Replay with garbage collected after every event, and objects lying elsewhere in memory than before.

    Raises:
        NonDeterminismError: the replay asks for something else.
    """
    rng = Random(history.execution_id)
    ballast: list[list[object]] = []

    def disturb() -> None:
        ballast.append([object() for _ in range(rng.randrange(1_000))])
        if len(ballast) > 8:
            ballast.pop(rng.randrange(8))
        gc.collect(2 if rng.random() < 0.1 else 1)  # a full one takes 20 ms beside much else

    for run in history.runs:
        replay_turns(run.key, history.orchestrator, run.turns, registry, between=disturb)


def check_elsewhere(
    histories: Iterable[ExportedHistory],
    orchestrators: Mapping[str, Orchestrator[..., Any]],
    hash_seeds: Iterable[int],
) -> None:
    """Replay histories in another process under each hash seed.

    Raises:
        NonDeterminismError: a replay asks for something else there.
        ConfigurationError: another process cannot import an orchestrator.
    """
    seeds = list(hash_seeds)
    if not seeds:
        return
    places = [_place_of(orchestrator) for orchestrator in orchestrators.values()]
    order = json.dumps({"orchestrators": places, "histories": [encode_export(history) for history in histories]})
    command = [sys.executable, "-m", "durably.testing.elsewhere"]
    for seed in seeds:
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": os.pathsep.join(_import_path())}
        done = subprocess.run(
            command, env=environment, input=order, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        if done.returncode:
            raise NonDeterminismError(
                f"In another process, under PYTHONHASHSEED={seed}, the replay of {', '.join(orchestrators)} went "
                f"wrong. The order of a set differs there, for one.\n{done.stderr.strip()}"
            )


def _place_of(orchestrator: Orchestrator[..., Any]) -> tuple[str, str, str]:
    """Module, file and name, for `durably.testing.elsewhere`."""
    fn = orchestrator.fn
    file = getattr(sys.modules.get(fn.__module__), "__file__", None)
    if "<locals>" in fn.__qualname__ or not isinstance(file, str):
        raise ConfigurationError(
            f"The orchestrator {orchestrator.name} is to be replayed by another process, which cannot import it: "
            "it is defined inside a function. Define it at the top of a module, or do without other hash seeds: "
            "Environment(hash_seeds=())."
        )
    return fn.__module__, file, orchestrator.name


def _import_path() -> list[str]:
    return [str(Path(entry).resolve()) for entry in sys.path]
