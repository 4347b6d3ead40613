"""What every use case is given: the ports, the registry and the limits of one process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from durably.api.registry import Registry
from durably.ports.backend import Backend
from durably.ports.clock import Clock, Entropy
from durably.ports.tokens import TokenSigner


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Numbers that keep one execution from hurting others.

    Attributes:
        events_per_turn: how many events one turn applies; the rest wait for the next turn.
        history_warning: inbound events after which a warning is logged, once.
        history_events: inbound events after which a run is terminated.
        warm_executions: how many executions are kept live in memory.
        deliveries_before_stall: a message received this often is stored without running code.
        deadly_pause_ms: about how long after a death the stored message is tried again; doubled each time.
        fruitless_wakes: how often a stalled execution is tried again before only new code wakes it.
        steps_per_event: callbacks the orchestrator's loop may run for one event.
        payload_bytes: largest payload of a callback.
        heartbeat_bytes: largest details of a heartbeat.
    """

    events_per_turn: int = 200
    history_warning: int = 10_000
    history_events: int = 1_000_000
    warm_executions: int = 2_000
    deliveries_before_stall: int = 3
    deadly_pause_ms: int = 1_000
    fruitless_wakes: int = 10
    steps_per_event: int = 1_000_000
    payload_bytes: int = 4 * 1024 * 1024
    heartbeat_bytes: int = 64 * 1024


class Budget(Protocol):
    """A turn's time budget, as entered."""

    @property
    def exceeded(self) -> bool:
        """Whether the turn took longer; `TurnTimeoutError` was then raised inside it."""
        ...


class _Unlimited:
    exceeded = False


def unlimited() -> AbstractContextManager[Budget]:
    """A budget that never ends."""
    return contextlib.nullcontext(_Unlimited())


@dataclass(frozen=True, slots=True, kw_only=True)
class Essentials:
    """The surroundings of the use cases that neither sign tokens nor take turns."""

    backend: Backend
    registry: Registry
    clock: Clock
    entropy: Entropy
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime(Essentials):
    """The surroundings of the use cases.

    Attributes:
        callback_url: base of callback addresses, without a trailing slash; the token is appended.
        budget: enters a turn's time budget.
    """

    signer: TokenSigner
    callback_url: str
    budget: Callable[[], AbstractContextManager[Budget]] = unlimited
