"""The command line. Importing it loads nothing but argparse, so that `durably --help` answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from durably.cli.arguments import Options, parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, or 1 when what was asked for failed. Wrong usage exits with 2.
    """
    options = parse(arguments)
    try:
        code = _run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    return code


def _run(options: Options) -> int:
    from durably.core.errors import DurablyError

    try:
        if options.command == "dev":
            from durably.cli.dev import dev

            return dev(options)
        if options.command == "lint":
            from durably.cli.lint import lint

            return lint(options)
        if options.command == "template":
            from durably.cli.template import template

            return template(options)
        if options.command == "cost":
            from durably.cli.cost import cost

            return cost(options)
        if options.command in ("export", "replay"):
            from durably.cli import histories

            return histories.export(options) if options.command == "export" else histories.replay(options)
        if options.command == "schedules":
            from durably.cli.schedules import schedules

            return schedules(options)
        if options.command in ("complete", "fail", "heartbeat"):
            from durably.cli.completions import COMPLETIONS

            return COMPLETIONS[options.command](options)
        from durably.cli.commands import COMMANDS

        return COMMANDS[options.command](options)
    except DurablyError as error:
        print(f"durably: {error}", file=sys.stderr)
        return 1
