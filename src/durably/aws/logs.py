"""Structured logs: in a Lambda function, everything that durably logs goes through Powertools' formatter.

Elsewhere logging belongs to whoever runs the process.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger

IN_LAMBDA = "AWS_LAMBDA_FUNCTION_NAME"


@cache
def configured() -> Logger | None:
    """The logger "durably", set up once per process; None outside Lambda."""
    if IN_LAMBDA not in os.environ:
        return None
    from aws_lambda_powertools import Logger

    return Logger(service="durably")


@contextmanager
def log_keys(**keys: Any) -> Generator[None, None, None]:
    """Put `keys` on every line that is logged in the block."""
    logger = configured()
    if logger is None:
        yield
        return
    with logger.append_context_keys(**keys):
        yield
