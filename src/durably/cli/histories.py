"""`durably export` and `durably replay`: histories as files, and against today's code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import Literal, TypeAlias

from durably.adapters.watchdog import Watchdog
from durably.api.registry import Registry
from durably.cli.arguments import Options
from durably.cli.opening import opened, registry_of, sources_of
from durably.cli.output import print_json
from durably.codec.exports import ExportedHistory, decode_export, encode_export
from durably.core.context import instant
from durably.core.errors import (
    ClientError,
    DurablyError,
    NonDeterminismError,
    Stall,
    TurnTimeoutError,
)
from durably.testing.replaying import replay_history, stored_history

_Histories: TypeAlias = Iterator[tuple[str, Callable[[], ExportedHistory]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """What came of one replay.

    Attributes:
        history: the file, or the execution's id.
        verdict: "unreadable" where the history itself could not be read.
        events: inbound events that it was replayed through.
        error: why the code does not agree; both sides of a divergence.
    """

    history: str
    verdict: Literal["agrees", "diverged", "stalled", "unreadable"]
    orchestrator: str | None = None
    events: int = 0
    error: str | None = None


def export(options: Options) -> int:
    """`durably export`."""
    with opened(options) as store:
        text = encode_export(stored_history(store.backend, store.record(options.execution_id)))
    if options.output is None:
        sys.stdout.write(text)
        return 0
    try:
        Path(options.output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ClientError(f"The history cannot be written to {options.output}: {error}.") from error
    return 0


def replay(options: Options) -> int:
    """`durably replay`."""
    registry = registry_of(sources_of(options))
    verdicts: list[_Verdict] = []
    watchdog = Watchdog(options.timeout)
    watchdog.start()
    try:
        for history, read in _files(options) if options.files else _executions(options):
            verdicts.append(_replayed(history, read, registry, watchdog))
            if not options.json:
                _print(verdicts[-1])
    finally:
        watchdog.stop()
    disagreeing = [verdict for verdict in verdicts if verdict.verdict != "agrees"]
    if options.json:
        print_json([asdict(verdict) for verdict in verdicts])
    else:
        print(f"{len(verdicts)} replayed, {len(disagreeing)} of them not as recorded", file=sys.stderr)
    return 1 if disagreeing else 0


def _files(options: Options) -> _Histories:
    for file in options.files:
        yield file, partial(_read, Path(file))


def _executions(options: Options) -> _Histories:
    """Those of the store that the options choose, newest first, without runs that are over: today's code takes none."""
    with opened(options) as store:
        records = store.client.list(status=options.status, orchestrator=options.orchestrator)
        if options.since is not None:
            records = takewhile(lambda record: instant(record.started_at_ms) >= options.since, records)
        for record in islice(records, options.limit):
            yield record.execution_id, partial(stored_history, store.backend, record, current_only=True)


def _read(file: Path) -> ExportedHistory:
    return decode_export(file.read_text(encoding="utf-8"))


def _replayed(name: str, read: Callable[[], ExportedHistory], registry: Registry, watchdog: Watchdog) -> _Verdict:
    try:
        history = read()
    except (OSError, ValueError, DurablyError) as error:
        return _Verdict(history=name, verdict="unreadable", error=str(error))
    try:
        with watchdog.budget() as budget:
            events = replay_history(history, registry).events
        if budget.exceeded:  # and the orchestrator swallowed what it was interrupted by
            raise TurnTimeoutError
    except Stall as stall:
        verdict: Literal["diverged", "stalled"] = "diverged" if isinstance(stall, NonDeterminismError) else "stalled"
        return _Verdict(history=name, verdict=verdict, orchestrator=history.orchestrator, error=str(stall))
    return _Verdict(history=name, verdict="agrees", orchestrator=history.orchestrator, events=events)


def _print(verdict: _Verdict) -> None:
    what = "" if verdict.orchestrator is None else f"  {verdict.orchestrator}"
    events = f"  {verdict.events} event{'s' * (verdict.events != 1)}" if verdict.verdict == "agrees" else ""
    print(f"{verdict.verdict:<10}  {verdict.history}{what}{events}", flush=True)
    for line in (verdict.error or "").splitlines():
        print(f"    {line}", flush=True)
