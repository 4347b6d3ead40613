"""Last: what the roles were allowed, against what their functions asked for in all the tests before."""

from __future__ import annotations

from tests.cloud.stack import Stack


def test_nobody_was_refused_anything(stories: Stack, routing: Stack) -> None:
    for stack in (stories, routing):
        assert not [line for line in stack.logs() if "AccessDenied" in line]
