"""A process that sleeps through its visibility time-out at any of its calls, and goes on when others took over."""

from __future__ import annotations

import pytest

from tests.aws.driver import VISIBILITY_S, Call, Cloud
from tests.aws.test_crashes import PARTS, STORIES, calls_of, points, told

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", ["everything", "two together", "failed callback"])
def test_a_zombie_at_any_call_changes_nothing(name: str, part: int) -> None:
    story, calls = STORIES[name], calls_of(name)
    for index, moment in points(name, part, last=False):
        slept: list[Call] = []

        def sleep(call: Call, cloud: Cloud, at: int = index, when: str = moment, slept: list[Call] = slept) -> None:
            if len(cloud.calls) == at + 1 and call.moment == when and not slept:
                slept.append(call)
                cloud.let_others_go_on(VISIBILITY_S + 1)

        try:
            told(story, sleep)
        except BaseException as error:
            error.add_note(f"after sleeping {moment} call {index}, {calls[index]}")
            raise
        assert [(call.function, call.operation) for call in slept] == [calls[index]]
