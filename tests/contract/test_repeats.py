"""What a client asks for twice under one request id happens once, on every backend, and both answers are the same."""

from __future__ import annotations

import pytest

from durably import Client, Registry
from durably.adapters.system import SystemEntropy
from durably.codec.payloads import PydanticCodec
from durably.core.context import instant
from durably.core.errors import ExecutionNotFoundError
from durably.ports.backend import TurnCommit
from durably.ports.records import RecordChange
from tests.contract.builders import FAILURE, RUN, creation, turn
from tests.contract.harness import START_MS, Harness

FAILED = RecordChange(status="failed", turn=3, code_version="v1", closed_at_ms=START_MS + 5, failure=FAILURE)


@pytest.fixture
def client(harness: Harness) -> Client:
    """Of an execution that failed in its third turn."""
    harness.backend.create(creation())
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(2, inbound=(), applied_through=1))])
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(3, applied_through=2), change=FAILED)])
    return Client(harness.backend, Registry(codec=PydanticCodec()), harness.clock, SystemEntropy())


def test_a_retry_and_a_reset_begin_one_run_each(client: Client, harness: Harness) -> None:
    assert [client.retry("packet-42", request_id="a") for _ in range(2)] == [2, 2]
    assert [client.reset("packet-42", 1, request_id="b") for _ in range(2)] == [3, 3]
    assert [client.retry("packet-42", request_id="a"), client.reset("packet-42", 1, request_id="b")] == [2, 3]
    found = harness.backend.read_record("packet-42")
    assert found is not None
    assert (found.status, found.run) == ("running", 3)
    assert harness.backend.load_turns(RUN.next.next.next) == []


def test_a_fork_starts_one_execution(client: Client, harness: Harness) -> None:
    gens = {client.fork("packet-42", "other", request_id="a").gen for _ in range(3)}
    found = harness.backend.read_record("other")
    assert found is not None
    assert gens == {found.gen}


def test_a_purge_is_accepted_again_and_leaves_nothing(client: Client, harness: Harness) -> None:
    for _ in range(2):
        client.purge("packet-42")
    with pytest.raises(ExecutionNotFoundError):
        client.describe("packet-42")
    assert list(client.purge_closed(closed_before=instant(START_MS + 6))) == []
    assert harness.backend.load_turns(RUN) == []
