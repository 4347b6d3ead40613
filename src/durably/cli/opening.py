"""What commands work on: the store, and the code where they need it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from durably.adapters.system import SystemClock, SystemEntropy
from durably.api.registry import Registry
from durably.cli.arguments import DEFAULT_SOURCES, Options
from durably.cli.stores import opened_store
from durably.client import Client
from durably.codec.payloads import PydanticCodec
from durably.core.errors import ConfigurationError
from durably.ports.backend import Backend
from durably.ports.records import Record
from durably.ports.tokens import TokenSigner
from durably.runtime.start import existing_record


@dataclass(frozen=True, slots=True)
class Opened:
    """An open store, a client of it, and who signs its task tokens."""

    backend: Backend
    client: Client
    signer: Callable[[], TokenSigner]

    def record(self, execution_id: str) -> Record:
        """The record of an execution that exists."""
        return existing_record(self.backend, execution_id)


@contextmanager
def opened(options: Options, registry: Registry | None = None, *, create: bool = False) -> Generator[Opened]:
    """The store, which must exist unless something is to be started in it."""
    with opened_store(options, create=create) as store:
        known = registry or Registry(codec=PydanticCodec())
        yield Opened(store.backend, Client(store.backend, known, SystemClock(), SystemEntropy()), store.signer)


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
