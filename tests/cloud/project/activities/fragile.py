"""An activity that ends the process that runs it, in a group of its own."""

from __future__ import annotations

import os
from datetime import timedelta

from durably import RetryPolicy, activity


@activity(timeout=timedelta(seconds=5), retry=RetryPolicy(max_attempts=1))
def dies() -> None:
    """Never returns."""
    os._exit(9)
