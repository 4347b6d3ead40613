"""A runtime that starts some executions, says so, and works until SIGTERM. Arguments: file, executions, steps."""

from __future__ import annotations

import signal
import sys

from benchmarks.workloads import ACTIVITIES, ORCHESTRATORS, add_in_sequence
from durably.embedded import Embedded

if __name__ == "__main__":
    file, executions, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    with Embedded(file, orchestrators=ORCHESTRATORS, activities=ACTIVITIES, http=None, synchronous="FULL") as runtime:
        for number in range(executions):
            runtime.client.start(f"adding-{number}", add_in_sequence, steps)
        print("started", flush=True)
        signal.sigwait([signal.SIGTERM])
