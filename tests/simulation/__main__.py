"""`python -m tests.simulation --seeds N`: run seeds, print what happened, exit 1 if a promise was broken."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import Pool

from tests.simulation.seeds import Modes, Report, run_seeds

_CHUNK = 250
_CHUNKS_PER_PROCESS = 4  # what a run leaves behind must not slow the next thousand down
_PROGRESS_S = 10


def main() -> int:
    arguments = _arguments()
    began = time.monotonic()
    last = arguments.first_seed + arguments.seeds
    chunks = [(first, min(_CHUNK, last - first), arguments.mode) for first in range(arguments.first_seed, last, _CHUNK)]
    report = Report()
    shown = began
    for part in _reports(chunks, arguments.jobs):
        report.add(part)
        _print_failures(part, arguments.mode, verbose=arguments.verbose)
        now = time.monotonic()
        if now - shown > _PROGRESS_S:
            shown = now
            rate = f"{report.seeds / (now - began):.0f} seeds/s, {len(report.failures)} failed"
            print(f"{report.seeds} of {arguments.seeds}, {rate}", file=sys.stderr, flush=True)
    _print(report, time.monotonic() - began)
    return 1 if report.failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them")
    parser.add_argument("--mode", choices=("atomic", "stepwise", "both", "aws"), default="both", help="of the store")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--verbose", action="store_true", help="everything about every failing seed")
    return parser.parse_args()


def _reports(chunks: list[tuple[int, int, Modes]], jobs: int) -> Iterator[Report]:
    if len(chunks) == 1:
        yield _run(chunks[0])
        return
    with Pool(jobs, maxtasksperchild=_CHUNKS_PER_PROCESS) as pool:
        yield from pool.imap_unordered(_run, chunks)


def _run(chunk: tuple[int, int, Modes]) -> Report:
    return run_seeds(*chunk)


def _print(report: Report, seconds: float) -> None:
    print(f"faults injected: {report.faults.total()}")
    _print_counts(report.faults)
    print(f"statements of programs: {report.features.total()}")
    _print_counts(report.features)
    print(f"answers to callbacks: {dict(report.verdicts.most_common())}")
    print(f"ends of executions: {dict(report.statuses.most_common())}")
    print(
        f"{report.seeds} seeds, {report.executions} executions, {report.turns} turns, {report.steps} steps "
        f"in {seconds:.1f} s ({report.seeds / seconds:.0f} seeds/s), {len(report.failures)} failed"
    )


def _print_counts(counts: Counter[str]) -> None:
    for name, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
        print(f"  {count:9}  {name}")


def _print_failures(report: Report, mode: Modes, *, verbose: bool) -> None:
    option = "" if mode == "both" else f" --mode {mode}"
    for seed, broken in sorted(report.failures.items()):
        print(f'FAILED: make simulate SEEDS=1 ARGS="--first-seed {seed}{option}"')
        shown = broken if verbose else [line[:600] for line in broken[:3]]
        print("\n".join(f"  {line}" for line in shown), flush=True)


if __name__ == "__main__":
    sys.exit(main())
