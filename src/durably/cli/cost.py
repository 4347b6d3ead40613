"""`durably cost`: what an execution costs on AWS, or would, were it there."""

from __future__ import annotations

from pathlib import Path

from durably.adapters.aws.costs import Functions, Prices, steps_of, usage_of
from durably.adapters.sqlite import SqliteBackend
from durably.adapters.system import SystemClock
from durably.cli.arguments import Options
from durably.cli.output import print_json, print_table
from durably.core.errors import ConfigurationError, StorageError
from durably.core.history import Turn
from durably.ports.backend import Backend
from durably.ports.records import Record
from durably.runtime.start import existing_record


def cost(options: Options) -> int:
    """`durably cost`."""
    record, turns = _aws(options.execution_id) if options.aws else _file(options.db, options.execution_id)
    functions = Functions(
        turn_ms=options.turn_ms,
        turn_mb=options.turn_mb,
        activity_ms=options.activity_ms,
        activity_mb=options.activity_mb,
    )
    prices = Prices.published()
    lines = prices.bill(usage_of(record, turns, functions))
    total, steps = sum(line.dollars for line in lines), steps_of(turns)
    if options.json:
        print_json(
            {
                "execution_id": record.execution_id,
                "steps": steps,
                "lines": [{"what": line.what, "units": line.units, "dollars": line.dollars} for line in lines],
                "dollars": total,
                "prices": {"source": prices.source, "date": prices.date, "region": prices.region},
            }
        )
        return 0
    rows = [(line.what, f"{line.units:,.10g}", f"{1e6 * line.dollars:,.2f}") for line in lines]
    print_table(("WHAT", "UNITS", "MICRODOLLARS"), [*rows, ("total", "", f"{1e6 * total:,.2f}")])
    if steps:
        print(f"\n{steps} steps; a million like these cost {1e6 * total / steps:,.2f} dollars.")
    print(f"An estimate, at the prices of {prices.date} in {prices.region} ({prices.source}).")
    return 0


def _file(path: str, execution_id: str) -> tuple[Record, list[Turn]]:
    if not Path(path).is_file():
        raise StorageError(f"There is no file {path}. Name the one that `durably dev` runs on with --db, or say --aws.")
    with SqliteBackend(path, clock=SystemClock()) as backend:
        return _read(backend, execution_id)


def _aws(execution_id: str) -> tuple[Record, list[Turn]]:
    from durably.adapters.aws import AwsBackend, AwsSettings, Clients

    settings = AwsSettings.from_environment(needs=("table", "bucket"))
    try:
        backend = AwsBackend(settings, clients=Clients(), clock=SystemClock())
        return _read(backend, execution_id)
    except ImportError as error:
        raise ConfigurationError(f"{error}: install durably with its extra, durably[aws].") from error


def _read(backend: Backend, execution_id: str) -> tuple[Record, list[Turn]]:
    record = existing_record(backend, execution_id)
    return record, backend.load_turns(record.key)
