"""The first program of the README, as a user would write it; it ends by telling its memory."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from durably import Context, activity, orchestrator
from durably.embedded import Embedded


@activity
def greet(name: str) -> str:
    return f"Hello, {name}!"


@orchestrator
async def hello(ctx: Context, name: str) -> str:  # noqa: ARG001  # every orchestrator takes it
    return await greet(name)


def peak_megabytes() -> float:
    """The most memory this process ever held.

    Not from `getrusage` where it can be helped: on Linux its figure survives exec, so it starts with the parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    with Embedded(sys.argv[1], orchestrators=[hello], activities=[greet]) as runtime:
        print(runtime.client.start("hello-1", hello, "World").result(), flush=True)
        print(peak_megabytes(), flush=True)
