"""What is wrong with a test, as opposed to what is wrong with the code that it tests."""

from __future__ import annotations

from durably.core.errors import DurablyError


class MockError(DurablyError):
    """An activity was asked for whose mock has no answer, or that has neither a mock nor anything that runs."""


class WaitsForEverError(DurablyError):
    """An execution waits, and nothing is due that could wake it; or it goes on and on."""


class CallbackRefusedError(DurablyError):
    """A callback was completed that is not open any more, or with something that it does not take."""


class Escape(BaseException):
    """Carries an error out of a mock past the orchestrator, which must neither retry nor catch it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error
