"""Templates edited as text, so that comments and whatever was tuned by hand stay."""

from __future__ import annotations

import re
from collections.abc import Mapping

from durably.core.errors import ConfigurationError


def added(template: str, section: str, blocks: Mapping[str, str]) -> str:
    """The template with those blocks at the end of a top-level section whose keys are not there yet.

    Args:
        template: the whole of it.
        section: such as "Resources".
        blocks: YAML text by key, indented by two.

    Raises:
        ConfigurationError: there is no such section.
    """
    found = re.search(rf"^{section}:.*\n(?:(?!\w).*\n)*", template, re.MULTILINE)
    if found is None:
        raise ConfigurationError(f"The template should hold the line `{section}:`, and does not.")
    missing = [block for key, block in blocks.items() if not re.search(rf"^  {key}:", found[0], re.MULTILINE)]
    if not missing:
        return template
    body = re.sub(r"\n(?:(?:#.*)?\n)*\Z", "\n", found[0])  # comments at the margin belong to what follows
    rest = template[found.start() + len(body) :]
    gap = "\n" if section == "Resources" else ""
    return template[: found.start()] + body + "".join(gap + block for block in missing) + rest


def between(template: str, what: str, lines: str) -> str:
    """The template with these lines between the markers of that name, indented as those are.

    Raises:
        ConfigurationError: a marker is missing.
    """
    found = _marked(template, what)
    indent = found["indent"]
    body = "".join(f"{indent}{line}" for line in lines.splitlines(keepends=True))
    marked = f"{indent}# durably template: {what}\n{body}{indent}# durably template: end\n"
    return template[: found.start()] + marked + template[found.end() :]


def listed(template: str, what: str, lines: list[str]) -> str:
    """The template with those of the lines added between the markers that are not there; what is there stays.

    Raises:
        ConfigurationError: a marker is missing.
    """
    there = [line.strip() for line in _marked(template, what)["body"].splitlines()]
    known = {line.partition(": ")[0] if not line.startswith("-") else line for line in there}
    new = [line for line in lines if (line if line.startswith("-") else line.partition(": ")[0]) not in known]
    return between(template, what, "".join(f"{line}\n" for line in [*there, *new]))


def _marked(template: str, what: str) -> re.Match[str]:
    pattern = re.compile(
        rf"^(?P<indent> *)# durably template: {what}\n(?P<body>(?:.*\n)*?) *# durably template: end\n", re.MULTILINE
    )
    found = pattern.search(template)
    if found is None:
        raise ConfigurationError(
            f"The template should hold the comments `# durably template: {what}` and, some lines below, `# durably "
            "template: end`, and does not; between them stands what this command keeps. Put them back: durably's own "
            "template.yaml shows where."
        )
    return found
