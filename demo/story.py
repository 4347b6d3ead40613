"""Runs a story by its name: `make story NAME=greetings`. The last line of standard output is its result, as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

# each a module beside this one, with a function `tell`
STORIES = ("greetings", "order", "packet_routing", "pokemon_capture", "user_onboarding")


def main(arguments: Sequence[str]) -> int:
    """Tell the story that the first argument names; the exit code is 2 if there is none of that name."""
    name = arguments[0] if arguments else ""
    if name not in STORIES:
        known = ", ".join(STORIES)
        problem = f"There is no story {name!r}." if name else "Which story?"
        print(f"{problem} There are: {known}. For example: make story NAME={STORIES[0]}", file=sys.stderr)
        return 2
    code: int = import_module(f"demo.{name}").tell(arguments[1:])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
