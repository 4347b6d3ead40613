"""What a scheduled activity carries besides its input. Recorded in history, never compared on replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from durably.core.retry import RetryPolicy

ActivityMode: TypeAlias = Literal["local", "callback"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityOptions:
    """Options of one activity call; None means the default, so that the common case costs no bytes.

    `mode` None is a queued activity, "local" runs beside the turn that scheduled it, "callback" is completed
    from outside. For a callback activity `start_to_close_ms` is the deadline of one attempt's callback.
    `heartbeat_ms` is how long an attempt may be silent.
    """

    retry: RetryPolicy | None = None
    start_to_close_ms: int | None = None
    schedule_to_start_ms: int | None = None
    schedule_to_close_ms: int | None = None
    mode: ActivityMode | None = None
    at_most_once: Literal[True] | None = None
    heartbeat_ms: int | None = None


ParentClose: TypeAlias = Literal["cancel", "abandon"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildOptions:
    """Options of one child; None means the default.

    Attributes:
        parent_close: what becomes of the child when its parent's run ends: None terminates it.
        id_reuse: None rejects an id that is taken.
        announced: the parent waits for the child's start, not only for its end.
    """

    parent_close: ParentClose | None = None
    id_reuse: Literal["allow_if_closed"] | None = None
    announced: Literal[True] | None = None


DEFAULT_RETRY = RetryPolicy()
DEFAULT_OPTIONS = ActivityOptions()
