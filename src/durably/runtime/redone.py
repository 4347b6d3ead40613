"""What goes with stored turns besides dispatching, for whoever finds that its taker may have died before doing it."""

from __future__ import annotations

from dataclasses import dataclass

from durably.core.events import UpdateCompleted
from durably.core.keys import ActivityKey
from durably.ports.messages import Outgoing
from durably.ports.records import Reply
from durably.runtime.closing import cancels, errands
from durably.runtime.live import Live


@dataclass(frozen=True, slots=True)
class Redone:
    """What goes with stored turns besides dispatching: it may not have been done.

    Attributes:
        says: whether one of them set the custom status.
    """

    send: tuple[Outgoing, ...]
    cancel: tuple[ActivityKey, ...]
    replies: tuple[Reply, ...]
    says: bool

    @classmethod
    def since(cls, live: Live, turn: int) -> Redone:
        """Of turn `turn` and later ones."""
        run, state = live.run, live.state
        return cls(
            errands(run, state, since=turn),
            cancels(run, state, since=turn),
            replies_since(live, since=turn),
            state.custom_status_turn >= turn,
        )

    def __bool__(self) -> bool:
        return bool(self.send or self.cancel or self.replies or self.says)


def replies_since(live: Live, *, since: int) -> tuple[Reply, ...]:
    """The replies to updates that turn `since` and later ones recorded."""
    return tuple(
        Reply(run=live.run, request_id=event.request_id, result=event.result)
        if isinstance(event, UpdateCompleted)
        else Reply(run=live.run, request_id=event.request_id, failure=event.failure)
        for event in live.state.answered_since(since)
    )
