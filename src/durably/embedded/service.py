"""`Embedded`: the whole of durably in one process on one SQLite file."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from os import PathLike
from types import TracebackType
from typing import Any, Self

from durably.adapters.sqlite import SqliteBackend, Synchronous
from durably.adapters.system import SystemClock, SystemEntropy
from durably.adapters.tokens import HmacTokenSigner
from durably.adapters.watchdog import Watchdog
from durably.api.activity import Activity
from durably.api.orchestrator import Orchestrator
from durably.api.registry import Registry
from durably.client import Client
from durably.codec.payloads import PydanticCodec
from durably.core.errors import ConfigurationError
from durably.embedded.engine import LEASE_MS, Engine
from durably.embedded.http import CallbackServer
from durably.ports.messages import Outgoing, Wake
from durably.runtime.runtime import Limits, Runtime

_logger = logging.getLogger("durably.embedded")


class Embedded:
    """A runtime on one SQLite file: takes turns, runs activities, fires timers, serves callbacks.

    Use it as a context manager, or call `start` and `stop`. Several processes may share the file.

    Args:
        path: the SQLite file; made if absent.
        orchestrators: declared with `@orchestrator`.
        activities: declared with `@activity` or `@callback_activity`.
        http: host and port of the callback server, port 0 for a free one; None for no server.
        callback_url: how others reach that server, if not under its own address.
        threads: how many sync activities run at a time.
        turn_seconds: wall-clock budget of one turn; a turn that takes longer stalls its execution.
        limits: further numbers.
        code_version: of the orchestrators, recorded with each turn; by default as `Registry` has it.
        synchronous: SQLite's `synchronous`; "FULL" survives a power cut, "NORMAL" only a crash of the process.

    Raises:
        StorageError: the file cannot be opened or is damaged.
        DefinitionError: two definitions share a name, or an annotation cannot be resolved.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        orchestrators: Iterable[Orchestrator[..., Any]] = (),
        activities: Iterable[Activity[..., Any]] = (),
        http: tuple[str, int] | None = ("127.0.0.1", 0),
        callback_url: str | None = None,
        threads: int = 16,
        turn_seconds: float = 10.0,
        limits: Limits | None = None,
        code_version: str | None = None,
        synchronous: Synchronous = "FULL",
    ) -> None:
        registry = Registry(orchestrators, activities, codec=PydanticCodec(), code_version=code_version)
        clock, entropy = SystemClock(), SystemEntropy()
        self._backend = SqliteBackend(path, synchronous=synchronous, clock=clock, visibility_ms=LEASE_MS)
        try:
            self._server = None if http is None else CallbackServer(http)
        except OSError as error:
            self._backend.close()
            raise ConfigurationError(
                f"The callback server cannot listen on {http}: {error}. Choose another port, or 0 for a free one."
            ) from error
        self._watchdog = Watchdog(turn_seconds)
        base = callback_url or (self._server.url if self._server is not None else "http://callback-server.invalid")
        self._runtime = Runtime(
            backend=self._backend,
            registry=registry,
            clock=clock,
            entropy=entropy,
            signer=token_signer(self._backend),
            callback_url=base.rstrip("/"),
            limits=limits or Limits(),
            budget=self._watchdog.budget,
        )
        self._engine = Engine(self._runtime, self._backend, threads=threads)
        self._started = self._stopped = False
        self.client = Client(
            self._backend,
            registry,
            clock,
            entropy,
            handed_over=self._engine.hand_over,
            pause=self._engine.wait_for_turns,
        )

    @property
    def url(self) -> str:
        """Base address of the callback server."""
        return self._runtime.callback_url

    def start(self) -> None:
        """Begin: resume what the file holds, accept callbacks. Executions stalled under other code are woken."""
        if self._started:
            raise ConfigurationError("This runtime was started before. Make another one.")
        self._started = True
        self._watchdog.start()
        self._wake_stalled()
        self._engine.start()
        if self._server is not None:
            self._server.start(self._runtime, self._engine.poke)

    def stop(self, grace_s: float = 30.0) -> bool:
        """Finish what runs, start nothing more, close the file. Everything unfinished resumes at the next start.

        Idempotent.

        Args:
            grace_s: seconds to wait for running activities; those that take longer run again.

        Returns:
            Whether everything that ran ended within the grace.
        """
        if self._stopped:
            return True
        self._stopped = finished = True
        if self._server is not None:
            self._server.stop()
        if self._started:
            finished = self._engine.stop(grace_s)
            self._watchdog.stop()
        if not finished:
            _logger.warning("some activities did not end within %g s; they will run again", grace_s)
        self._backend.close()
        return finished

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wake_stalled(self) -> None:
        version = self._runtime.registry.code_version
        for record in self.client.list(status="stalled"):
            if record.code_version != version:
                self._backend.send([Outgoing(Wake(run=record.key, turn=record.turn))])


def connect(path: str | PathLike[str], *, orchestrators: Iterable[Orchestrator[..., Any]] = ()) -> Client:
    """A client of a file whose runtime is in another process.

    Args:
        path: the SQLite file; made if absent.
        orchestrators: those that are to be started or whose results are to be typed.
    """
    clock, entropy = SystemClock(), SystemEntropy()
    backend = SqliteBackend(path, clock=clock)
    return Client(backend, Registry(orchestrators, codec=PydanticCodec()), clock, entropy)


def token_signer(backend: SqliteBackend) -> HmacTokenSigner:
    """The signer of a file's task tokens; its key and its deployment's name live in the file."""
    deployment = backend.secret("deployment").hex()[:16]
    return HmacTokenSigner(deployment, {"1": backend.secret("token-key-1")}, current="1")
