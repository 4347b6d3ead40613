"""`assert_replay_safe`: one execution, crashed at every event, and its history replayed under other circumstances."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, ParamSpec, TypeVar

from durably.api.orchestrator import Orchestrator
from durably.api.registry import Registry
from durably.core.errors import ConfigurationError, NonDeterminismError
from durably.core.history import Turn
from durably.core.keys import RunKey
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


def check_here(run: RunKey, orchestrator: str, turns: Sequence[Turn], registry: Registry) -> None:
    """Replay with garbage collected after every event, and objects lying elsewhere in memory than before.

    Raises:
        NonDeterminismError: the replay asks for something else.
    """
    rng = Random(run.execution_id)
    ballast: list[list[object]] = []

    def disturb() -> None:
        ballast.append([object() for _ in range(rng.randrange(1_000))])
        if len(ballast) > 8:
            ballast.pop(rng.randrange(8))
        gc.collect(2 if rng.random() < 0.1 else 1)  # a full one takes 20 ms beside much else

    replay_turns(run, orchestrator, turns, registry, between=disturb)


def check_elsewhere(exported: str, orchestrator: Orchestrator[..., Any], hash_seeds: Iterable[int]) -> None:
    """Replay an exported history in another process under each hash seed.

    Raises:
        NonDeterminismError: the replay asks for something else there.
        ConfigurationError: another process cannot import the orchestrator.
    """
    fn = orchestrator.fn
    name, module = fn.__qualname__, sys.modules.get(fn.__module__)
    file = getattr(module, "__file__", None)
    for hash_seed in hash_seeds:
        if "<locals>" in name or not isinstance(file, str):
            raise ConfigurationError(
                f"The orchestrator {orchestrator.name} is to be replayed by another process, which cannot import it: "
                "it is defined inside a function. Define it at the top of a module, or do without other hash seeds: "
                "Environment(hash_seeds=())."
            )
        command = [sys.executable, "-m", "durably.testing.elsewhere", fn.__module__, file, orchestrator.name]
        environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(_import_path())}
        done = subprocess.run(
            command, env=environment, input=exported, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        if done.returncode:
            raise NonDeterminismError(
                f"In another process, under PYTHONHASHSEED={hash_seed}, the replay of {orchestrator.name} went wrong. "
                f"The order of a set differs there, for one.\n{done.stderr.strip()}"
            )


def _import_path() -> list[str]:
    return [str(Path(entry).resolve()) for entry in sys.path]
