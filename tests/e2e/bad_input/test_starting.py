"""What is wrong with a start, or comes back wrong from user code, is refused with an error that says why."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from durably import (
    ExecutionClosedError,
    ExecutionExistsError,
    ExecutionFailedError,
    ExecutionNotFoundError,
    Handle,
    PayloadError,
    ResultTimeoutError,
)
from durably.core.errors import InvalidIdError, UnknownOrchestratorError
from durably.embedded import Embedded
from tests.e2e.bad_input.parcels import (
    MEGABYTE,
    SOON_S,
    doubled,
    everything,
    post,
    returns_nonsense,
    told,
    unregistered,
    urls,
    weighed,
)


def test_an_orchestrator_that_nobody_registered_is_refused(runtime: Embedded) -> None:
    with pytest.raises(UnknownOrchestratorError, match=r"'unregistered'.*knows: doubled,"):
        runtime.client.start("a", unregistered)
    with pytest.raises(UnknownOrchestratorError, match="'nobody'"):
        runtime.client.start_by_name("a", "nobody", "{}")
    assert everything(runtime) == []


@pytest.mark.parametrize("wrong", ["doubled", doubled.fn, None])
def test_what_is_no_orchestrator_is_refused(runtime: Embedded, wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"start\(\) takes an id and an @orchestrator, got .* See start_by_name"):
        runtime.client.start("a", wrong, 1)
    assert everything(runtime) == []


@pytest.mark.parametrize("wrong", ["seven", 7.5, None, [7]])
def test_an_argument_of_the_wrong_type_is_refused_with_its_name(runtime: Embedded, wrong: Any) -> None:
    with pytest.raises(PayloadError, match=r"doubled\(\), at number: expected a valid integer"):
        runtime.client.start("a", doubled, wrong)
    assert everything(runtime) == []


def test_arguments_that_do_not_fit_the_signature_are_refused_as_python_does(runtime: Embedded) -> None:
    start: Any = runtime.client.start
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'number'"):
        start("a", doubled)
    with pytest.raises(TypeError, match="unexpected keyword argument 'wight'"):
        start("a", doubled, 1, wight=2)
    assert everything(runtime) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"number": "x"}', '{"nummer": 1}', '{"number": NaN}'])
def test_input_as_text_that_does_not_fit_is_refused(runtime: Embedded, text: str) -> None:
    with pytest.raises(PayloadError, match=r"arguments of doubled\(\)"):
        runtime.client.start_by_name("a", "doubled", text)
    assert everything(runtime) == []


@pytest.mark.parametrize("bad", ["", "with space", "tab\t", "null\0", "naïve", "#record", "a" * 257, 7])
def test_an_id_with_illegal_characters_is_refused(runtime: Embedded, bad: Any) -> None:
    for use in (
        lambda: runtime.client.start(bad, doubled, 1),
        lambda: runtime.client.describe(bad),
        lambda: runtime.client.history(bad),
        lambda: runtime.client.terminate(bad),
        lambda: runtime.client.handle(bad).result(0),
    ):
        with pytest.raises(InvalidIdError, match="A-Z a-z 0-9"):
            use()
    assert everything(runtime) == []


def test_an_id_that_is_taken_is_refused_whether_its_execution_runs_or_has_ended(
    runtime: Embedded, waiting: Handle[int]
) -> None:
    before = everything(runtime)
    with pytest.raises(ExecutionExistsError, match=r"'parcel-1' belongs to .* open execution of weighed"):
        runtime.client.start("parcel-1", doubled, 1)
    assert everything(runtime) == before
    assert post(urls["parcel"], '{"weight": 3}')[0] == 200
    assert waiting.result(SOON_S) == 3
    before = everything(runtime)
    with pytest.raises(ExecutionExistsError, match="closed"):
        runtime.client.start("parcel-1", doubled, 1)
    assert everything(runtime) == before


def test_an_input_of_10_mb_is_refused(runtime: Embedded) -> None:
    with pytest.raises(PayloadError, match=r"at most .* bytes"):
        runtime.client.start("a", weighed, "x" * (10 * MEGABYTE))
    assert everything(runtime) == []


# --- asking for what is not there ------------------------------------------------------------------------------


def test_an_execution_that_does_not_exist_is_said_not_to(runtime: Embedded) -> None:
    client = runtime.client
    uses: list[Callable[[str], object]] = [client.describe, client.history, client.terminate]
    uses.append(lambda id_: client.handle(id_).result(0))
    for use in uses:
        with pytest.raises(ExecutionNotFoundError, match="'nowhere'"):
            use("nowhere")


def test_waiting_for_a_result_ends_in_time_and_harms_nothing(runtime: Embedded, waiting: Handle[int]) -> None:
    before = everything(runtime)
    with pytest.raises(ResultTimeoutError, match=r"parcel-1 did not close within 0\.05 s"):
        waiting.result(0.05)
    assert everything(runtime) == before
    post(urls["parcel"], '{"weight": 4}')
    assert waiting.result(SOON_S) == 4


def test_an_execution_is_terminated_once(runtime: Embedded, waiting: Handle[int]) -> None:
    waiting.terminate("enough")
    with pytest.raises(ExecutionFailedError, match="enough"):
        waiting.result(SOON_S)
    before = everything(runtime)
    with pytest.raises(ExecutionClosedError, match="is terminated; it accepts nothing more"):
        waiting.terminate("more than enough")
    assert everything(runtime) == before
    assert post(urls["parcel"], '{"weight": 3}')[0] == 410
    assert everything(runtime) == before


def test_two_terminations_at_once_are_one(runtime: Embedded, waiting: Handle[int]) -> None:
    waiting.terminate("first")
    with suppress(ExecutionClosedError):  # it may have ended before
        waiting.terminate("second")
    with pytest.raises(ExecutionFailedError, match="first"):
        waiting.result(SOON_S)
    ends = [e for e in runtime.client.history("parcel-1") if e.event.kind == "ExecutionTerminated"]
    assert len(ends) == 1


# --- what activities and orchestrators return --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("unserialisable", "expected a value that can hold JSON|has no JSON form"),
        ("wrong type", "expected a valid integer, got 'seven'"),
        ("huge", "expected at most .* bytes of JSON, got 10,485,762"),
    ],
)
def test_a_result_that_cannot_be_stored_fails_the_activity_and_says_why(
    runtime: Embedded, which: str, says: str
) -> None:
    handle = runtime.client.start("a", told, which)
    message = handle.result(SOON_S)
    assert message.startswith("durably.core.errors.PayloadError")
    assert re.search(says, message), message
    kinds = [entry.event.kind for entry in runtime.client.history("a")]
    assert kinds == ["ExecutionStarted", "ActivityScheduled", "ActivityFailed", "ExecutionCompleted"]


def test_an_orchestrator_that_returns_what_it_did_not_promise_fails(runtime: Embedded) -> None:
    handle = runtime.client.start("a", returns_nonsense)
    with pytest.raises(ExecutionFailedError, match="expected a valid integer"):
        handle.result(SOON_S)
    assert handle.describe().status == "failed"


def test_an_input_of_10_mb_as_text_is_refused(runtime: Embedded) -> None:
    with pytest.raises(PayloadError, match=r"at most .* bytes"):
        runtime.client.start_by_name("a", "weighed", json.dumps({"key": "x" * (10 * MEGABYTE)}))
    assert everything(runtime) == []
