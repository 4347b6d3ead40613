"""`python -m tests.simulation --seeds N`: run seeds, print what happened, exit 1 if a promise was broken."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.simulation.seeds import Modes, Report, run_seeds

_CHUNK = 250
_SHOWN = 10


def main() -> int:
    arguments = _arguments()
    began = time.monotonic()
    last = arguments.first_seed + arguments.seeds
    chunks = [(first, min(_CHUNK, last - first), arguments.mode) for first in range(arguments.first_seed, last, _CHUNK)]
    report = Report()
    shown = began
    for part in _reports(chunks, arguments.jobs):
        report.add(part)
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            rate = report.seeds / (shown - began)
            print(
                f"{report.seeds} of {arguments.seeds} seeds, {rate:.0f}/s, {len(report.failures)} failing", flush=True
            )
    _print(report, time.monotonic() - began, verbose=arguments.verbose)
    return 1 if report.failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them")
    parser.add_argument("--mode", choices=("atomic", "stepwise", "both"), default="both", help="of the store's calls")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--verbose", action="store_true", help="everything about every failing seed")
    return parser.parse_args()


def _reports(chunks: list[tuple[int, int, Modes]], jobs: int):  # type: ignore[no-untyped-def]
    if jobs <= 1 or len(chunks) == 1:
        for chunk in chunks:
            yield run_seeds(*chunk)
        return
    with ProcessPoolExecutor(jobs) as pool:
        for future in as_completed([pool.submit(run_seeds, *chunk) for chunk in chunks]):
            yield future.result()


def _print(report: Report, seconds: float, *, verbose: bool) -> None:
    print(f"faults injected: {report.faults.total()}")
    _table(report.faults)
    print(f"statements of programs: {report.features.total()}")
    _table(report.features)
    print(f"answers to callbacks: {dict(report.verdicts.most_common())}")
    print(f"ends of executions: {dict(report.statuses.most_common())}")
    print(
        f"{report.seeds} seeds, {report.executions} executions, {report.turns} turns, {report.steps} steps "
        f"in {seconds:.1f} s ({report.seeds / seconds:.0f} seeds/s)"
    )
    for seed, broken in sorted(report.failures.items())[: None if verbose else _SHOWN]:
        print(f'\nFAILED: make simulate SEEDS=1 ARGS="--first-seed {seed}"')
        for line in broken if verbose else broken[:3]:
            print(f"  {line if verbose else line[:600]}")
    if report.failures:
        print(f"\n{len(report.failures)} of {report.seeds} seeds failed")


def _table(counts: Counter[str]) -> None:
    for name, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
        print(f"  {count:8}  {name}")


if __name__ == "__main__":
    sys.exit(main())
