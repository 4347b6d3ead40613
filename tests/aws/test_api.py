"""The management routes beyond what `test_events` asks of them: pages, sizes, odd ids."""

from __future__ import annotations

from tests.aws import programs
from tests.aws.driver import Cloud


def test_a_list_comes_in_pages(cloud: Cloud) -> None:
    for n in range(5):
        cloud.client.start(f"x-{n}", programs.pipeline, n)
        cloud.clock.advance(1)
    found: list[str] = []
    path = "/executions?limit=2&status=running&orchestrator=pipeline"
    while True:
        status, page = cloud.http("api", "GET", path)
        assert status == 200
        found += [each["execution_id"] for each in page["executions"]]
        if page["cursor"] is None:
            break
        path = f"/executions?limit=2&status=running&orchestrator=pipeline&cursor={page['cursor']}"

    assert found == ["x-4", "x-3", "x-2", "x-1", "x-0"]


def test_a_history_comes_in_pages(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.pipeline, 1)
    cloud.run()
    found: list[str] = []
    after: int | None = 0
    while after is not None:
        _, page = cloud.http("api", "GET", f"/executions/x-1/history?after={after}&limit=2")
        found += [event["event"] for event in page["events"]]
        after = page["after"]

    assert found == ["ExecutionStarted", *["ActivityScheduled", "ActivityCompleted"] * 3, "ExecutionCompleted"]


def test_ids_with_slashes_and_signs_are_found(cloud: Cloud) -> None:
    id_ = "tenant/42:a+b=c@d"
    cloud.client.start(id_, programs.pipeline, 1)

    status, described = cloud.http("api", "GET", "/executions/tenant%2F42%3Aa%2Bb%3Dc%40d")
    assert (status, described["execution_id"]) == (200, id_)
    assert described["status"] == "running"


def test_a_description_shows_what_is_waited_for(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.mixed, 1)
    cloud.run(until=lambda: programs.calls["flaky"] == 2)

    _, described = cloud.http("api", "GET", "/executions/x-1")
    (activity,) = described["activities"]
    assert (activity["name"], activity["attempt"], activity["state"]) == ("flaky", 3, "retrying")
    assert activity["last_failure"]["message"] == "attempt 2 failed"


def test_a_large_answer_is_compressed_where_that_is_accepted(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.echo, '"\\' * 1_000_000)
    cloud.run()

    status, answer = cloud.http("api", "GET", "/executions/x-1/result")
    assert (status, "gzip" in answer["message"]) == (406, True)
    status, answer = cloud.http("api", "GET", "/executions/x-1/result", headers={"accept-encoding": "gzip, br"})
    assert (status, answer["result"]) == (200, '"\\' * 1_000_000)
