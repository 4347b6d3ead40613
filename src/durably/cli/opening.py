"""What commands work on: the file, and the code where they need it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from durably.adapters.sqlite import SqliteBackend
from durably.adapters.system import SystemClock, SystemEntropy
from durably.api.registry import Registry
from durably.cli.arguments import DEFAULT_SOURCES, Options
from durably.client import Client
from durably.codec.payloads import PydanticCodec
from durably.core.errors import ConfigurationError, StorageError
from durably.ports.records import Record
from durably.runtime.start import existing_record


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file."""

    backend: SqliteBackend
    client: Client

    def record(self, execution_id: str) -> Record:
        """The record of an execution that exists."""
        return existing_record(self.backend, execution_id)


@contextmanager
def opened(options: Options, registry: Registry | None = None, *, create: bool = False) -> Generator[Opened]:
    """The file, which must exist unless something is to be started in it."""
    if not create and not Path(options.db).is_file():
        raise StorageError(
            f"There is no file {options.db}. Name the one that `durably dev` runs on with --db, or set DURABLY_DB."
        )
    clock = SystemClock()
    with SqliteBackend(options.db, clock=clock) as backend:
        yield Opened(backend, Client(backend, registry or Registry(codec=PydanticCodec()), clock, SystemEntropy()))


def sources_of(options: Options) -> Sequence[str]:
    """The files and folders with the code."""
    sources: Sequence[str] = options.sources or [name for name in DEFAULT_SOURCES if Path(name).is_dir()]
    if not sources:
        raise ConfigurationError(
            "Where is the orchestrator defined? There is no orchestrators/ here. Name its file or folder with --from."
        )
    return sources


def registry_of(sources: Sequence[str]) -> Registry:
    """The orchestrators defined there."""
    from durably.embedded.discovery import discover  # most commands do without

    return Registry(discover(sources).orchestrators, codec=PydanticCodec())
