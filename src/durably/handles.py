"""Handles: what a start returns, and whoever knows an id can have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, cast

from durably.core.channels import Query, Signal, Update
from durably.descriptions import Description

if TYPE_CHECKING:
    from durably.client import Client

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")


class Handle(Generic[R]):
    """A started execution."""

    def __init__(self, client: Client, execution_id: str, gen: str | None) -> None:
        self._client = client
        self.execution_id = execution_id
        self.gen = gen

    def __repr__(self) -> str:
        return f"<execution {self.execution_id}>"

    def result(self, timeout: float | None = None) -> R:
        """Wait for the execution to close and return what its orchestrator returned.

        Args:
            timeout: seconds to wait at most; for ever by default.

        Raises:
            ExecutionFailedError: it failed or was terminated; `ExecutionCancelledError`: it was cancelled.
            ResultTimeoutError: it is still open. It goes on; ask again.
            ExecutionNotFoundError: there is no such execution.
        """
        return cast(R, self._client.wait(self.execution_id, timeout))

    def describe(self) -> Description:
        """The execution as it stands."""
        return self._client.describe(self.execution_id)

    def signal(self, signal: Signal[T], payload: T, /, *, request_id: str | None = None) -> None:
        """Send it a signal; see `Client.signal`."""
        self._client.signal(self.execution_id, signal, payload, request_id=request_id)

    def query(self, query: Query[T], /) -> T:
        """Ask it; see `Client.query`."""
        return self._client.query(self.execution_id, query)

    def update(
        self,
        update: Update[A, T],
        payload: A,
        /,
        *,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> T:
        """Send it a request and wait for the reply; see `Client.update`."""
        return self._client.update(self.execution_id, update, payload, request_id=request_id, timeout=timeout)

    def cancel(self, reason: str = "cancelled through its handle") -> None:
        """Ask its code to cancel itself."""
        self._client.cancel(self.execution_id, reason)

    def terminate(self, reason: str = "terminated through its handle") -> None:
        """End the execution without asking its code."""
        self._client.terminate(self.execution_id, reason)
