from __future__ import annotations

from tests.infra.reading import resources
from tests.sam_local.expected import EVENTS, gaps


def test_sam_local_tries_every_function_with_every_event() -> None:
    functions = resources("AWS::Serverless::Function")
    assert gaps(functions) == []
    assert gaps([*functions, "Forgotten"]) == ["Forgotten"]
    assert all(EVENTS.values())
