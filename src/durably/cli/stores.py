"""Where executions live: in the SQLite file, or with --stack in a deployment."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from durably.adapters.sqlite import SqliteBackend
from durably.adapters.system import SystemClock
from durably.cli.arguments import Options
from durably.core.errors import ConfigurationError, StorageError
from durably.ports.backend import Backend
from durably.ports.tokens import TokenSigner


@dataclass(frozen=True, slots=True)
class Store:
    """Where executions are, and who signs their task tokens."""

    backend: Backend
    signer: Callable[[], TokenSigner]


@contextmanager
def opened_store(options: Options, *, create: bool = False) -> Generator[Store]:
    """The store that the options name; a file must exist unless something is to be started in it.

    Raises:
        StorageError: there is no such file.
        ConfigurationError: there is no such stack, or the extra durably[aws] is missing.
    """
    if options.stack is not None:
        yield _deployed(options.stack)
        return
    if not create and not Path(options.db).is_file():
        raise StorageError(
            f"There is no file {options.db}. Name the one that `durably dev` runs on with --db, or set DURABLY_DB; "
            "--stack names a deployment."
        )
    with SqliteBackend(options.db, clock=SystemClock()) as backend:
        yield Store(backend, lambda: _signer_of(backend))


def is_anybody_there(options: Options) -> str:
    """What to look at when nobody takes an execution's turns."""
    if options.stack is not None:
        return f"Are the functions of the stack {options.stack} well? Its dashboard and its log say."
    return f"Is `durably dev` running on {options.db}?"


def who_comes(options: Options) -> str:
    """Who takes an execution's turns."""
    return "its function comes to it" if options.stack is not None else f"a runtime serves {options.db}"


def _signer_of(backend: SqliteBackend) -> TokenSigner:
    from durably.embedded.service import token_signer  # most commands do without

    return token_signer(backend)


def _deployed(stack: str) -> Store:
    try:
        from durably.adapters.aws import AwsBackend, Clients
        from durably.adapters.aws.secrets import SecretTokenSigner
        from durably.adapters.aws.stacks import settings_of

        clients, clock = Clients(), SystemClock()
        settings = settings_of(stack, clients)
        backend = AwsBackend(settings, clients=clients, clock=clock)
    except ImportError as error:
        raise ConfigurationError(f"{error}: install durably with its extra, durably[aws].") from error
    return Store(backend, lambda: SecretTokenSigner(settings, clients, clock))
