"""The embedded runtime at work, in this process, with `synchronous=FULL`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from uuid import uuid4

from benchmarks.measuring import Bench, Measurement, middle, percentile, seconds_of
from benchmarks.workloads import ACTIVITIES, ORCHESTRATORS, add_at_once, add_in_sequence
from durably import Handle, Orchestrator
from durably.embedded import Embedded

_STEPS = 5
_PATIENCE_S = 60.0


def sequential(bench: Bench) -> Iterator[Measurement]:
    with _warm_runtime(bench) as runtime:
        for n in bench.sizes((10, 100, 1_000), (10, 100)):
            work = partial(_run, runtime, add_in_sequence, n, n * (n - 1) // 2)
            samples = [seconds_of(work) for _ in range(bench.repeats(15 if n < 1_000 else 5, 3))]
            yield Measurement(middle(samples) / n * 1e3, n)


def fan_out(bench: Bench) -> Iterator[Measurement]:
    with _warm_runtime(bench) as runtime:
        for n in bench.sizes((100, 500), (100,)):
            work = partial(_run, runtime, add_at_once, n, n * (n + 1) // 2)
            yield Measurement(middle([seconds_of(work) for _ in range(bench.repeats(15, 3))]), n)


def throughput(bench: Bench) -> Iterator[Measurement]:
    n = bench.sizes((500,), (100,))[0]
    with _warm_runtime(bench) as runtime:
        samples = [_burst(runtime, f"burst-{i}", n) for i in range(bench.repeats(7, 3))]
    rate = middle([sample[0] for sample in samples])
    p50, p99 = (middle([percentile(latencies, percent) for _, latencies in samples]) for percent in (50, 99))
    yield Measurement(rate, n, {"p50_ms": p50, "p99_ms": p99})


def _run(runtime: Embedded, orchestrator: Orchestrator[[int], int], n: int, expected: int) -> None:
    result = runtime.client.start(uuid4().hex, orchestrator, n).result(_PATIENCE_S)
    assert result == expected, f"{orchestrator.name} of {n} gave {result}"


def _burst(runtime: Embedded, name: str, n: int) -> tuple[float, list[float]]:
    """Executions a second from the first start to the last result, and each one's milliseconds from start to close."""
    client = runtime.client
    handles: list[Handle[int]] = []
    begun_ms: list[float] = []
    begun = time.perf_counter()
    for i in range(n):
        begun_ms.append(time.time() * 1e3)
        handles.append(client.start(f"{name}-{i}", add_in_sequence, _STEPS))
    results = {handle.result(_PATIENCE_S) for handle in handles}
    took = time.perf_counter() - begun
    assert results == {sum(range(_STEPS))}, f"the executions gave {results}"
    closed_ms = {
        record.execution_id: record.closed_at_ms for record in client.list() if record.execution_id.startswith(name)
    }
    return n / took, [float(closed_ms[f"{name}-{i}"] or 0) - begun_ms[i] for i in range(n)]


@contextmanager
def _warm_runtime(bench: Bench) -> Iterator[Embedded]:
    """A runtime that has run one execution of each kind before."""
    with Embedded(
        bench.file(), orchestrators=ORCHESTRATORS, activities=ACTIVITIES, http=None, synchronous="FULL"
    ) as runtime:
        _run(runtime, add_in_sequence, 20, 190)
        _run(runtime, add_at_once, 50, 1_275)
        yield runtime
