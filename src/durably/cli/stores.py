"""Where executions are read from: the SQLite file, or with --aws the deployment that the environment names."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from durably.adapters.sqlite import SqliteBackend
from durably.adapters.system import SystemClock
from durably.cli.arguments import Options
from durably.core.errors import ConfigurationError, StorageError
from durably.ports.backend import Backend


@contextmanager
def opened_store(options: Options) -> Generator[Backend]:
    """The store that the options name; it must exist.

    Raises:
        StorageError: there is no such file.
        ConfigurationError: a setting is missing, or the extra durably[aws].
    """
    if options.aws:
        yield _aws()
        return
    if not Path(options.db).is_file():
        raise StorageError(
            f"There is no file {options.db}. Name the one that `durably dev` runs on with --db, or say --aws."
        )
    with SqliteBackend(options.db, clock=SystemClock()) as backend:
        yield backend


def _aws() -> Backend:
    from durably.adapters.aws import AwsBackend, AwsSettings, Clients

    settings = AwsSettings.from_environment(needs=("table", "bucket"))
    try:
        return AwsBackend(settings, clients=Clients(), clock=SystemClock())
    except ImportError as error:
        raise ConfigurationError(f"{error}: install durably with its extra, durably[aws].") from error
