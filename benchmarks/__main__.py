"""`python -m benchmarks`: one JSON object a line on stdout, progress on stderr."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.disk import scratch_directory
from benchmarks.measuring import Bench, Case, Measurement
from benchmarks.table import CASES


def main(argv: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(argv)
    chosen = [case for case in CASES if not options.only or case.name in options.only]
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    begun = time.monotonic()
    with scratch_directory(options.directory) as directory:
        bench = Bench(directory, quick=options.quick)
        for number, case in enumerate(chosen, start=1):
            print(f"{time.monotonic() - begun:5.1f} s  {number}/{len(chosen)} {case.name}", file=sys.stderr)
            for measurement in case.run(bench):
                print(json.dumps(_line(case, measurement)), flush=True)
    print(f"{time.monotonic() - begun:5.1f} s  done", file=sys.stderr)


def _line(case: Case, measurement: Measurement) -> dict[str, object]:
    line: dict[str, object] = {"case": case.name, "value": _rounded(measurement.value), "unit": case.unit}
    line["n"] = measurement.n
    return line | {name: _rounded(value) for name, value in measurement.extra.items()}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _parser() -> argparse.ArgumentParser:
    width = max(len(case.name) for case in CASES)
    cases = "\n".join(f"  {case.name:<{width}}  {case.about}" for case in CASES)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures durably and prints one JSON object a line: case, value, unit, n.",
        epilog=f"cases:\n{cases}\n\n"
        "Computation counts with its best repetition, because whatever disturbs it only makes it longer. What waits "
        "for disks,\nthreads or processes counts with its median. Every database is written with synchronous=FULL, on "
        "a disk.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [case.name for case in CASES]
    parser.add_argument("--only", action="append", choices=names, metavar="CASE", help="this case; may be repeated")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer repetitions: under 20 s")
    parser.add_argument("--directory", type=Path, help="where the database files go (removed afterwards)")
    return parser


if __name__ == "__main__":
    main()
