"""The files of Lambda functions: imports, and `handler = ..._handler(...)`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

Definition = tuple[str, str]  # its module, and what it is called there


def handing(text: str, maker: str, definitions: Sequence[Definition], starts: Sequence[Definition] = ()) -> str:
    """A function's file that hands those definitions to the maker of its handler; what is in it already stays.

    Args:
        text: the file; empty if there is none.
        maker: such as "activity_handler".
        definitions: what is handed over.
        starts: what a new file hands over as `starts`.
    """
    if not text:
        named = [name for _, name in definitions]
        if starts:
            named.append(f"starts=[{', '.join(name for _, name in starts)}]")
        imports = _imports([("durably.aws", maker), *definitions, *starts])
        return "\n".join([*imports, "", f"handler = {maker}({', '.join(named)})", ""])
    missing = [each for each in definitions if not re.search(rf"\b{each[1]}\b", text)]
    if not missing:
        return text
    handed = "".join(f"{name}, " for _, name in missing)
    return "\n".join([*_imports(missing), text.replace(f"{maker}(", f"{maker}({handed}", 1)])


def _imports(definitions: Iterable[Definition]) -> list[str]:
    by_module = groupby(sorted(set(definitions)), key=itemgetter(0))
    return [f"from {module} import {', '.join(name for _, name in names)}" for module, names in by_module]
