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
        starts: what is handed over as `starts`.
    """
    if not text:
        named = [_names(definitions), *([f"starts=[{_names(starts)}]"] if starts else [])]
        imports = _imports([("durably.aws", maker), *definitions, *starts])
        return f"{imports}\nhandler = {maker}({', '.join(named)})\n"
    handed, started = _missing(definitions, text), _missing(starts, text)
    imports = _imports([*handed, *started])
    if handed:
        text = text.replace(f"{maker}(", f"{maker}({_names(handed)}, ", 1)
    if started and "starts=[" in text:
        text = text.replace("starts=[", f"starts=[{_names(started)}, ", 1)
    elif started:
        call, _, rest = text.rpartition(")")
        text = f"{call}, starts=[{_names(started)}]){rest}"
    return imports + text


def _missing(definitions: Sequence[Definition], text: str) -> list[Definition]:
    return [each for each in definitions if not re.search(rf"\b{each[1]}\b", text)]


def _names(definitions: Iterable[Definition]) -> str:
    return ", ".join(name for _, name in definitions)


def _imports(definitions: Iterable[Definition]) -> str:
    by_module = groupby(sorted(set(definitions)), key=itemgetter(0))
    return "".join(f"from {module} import {_names(names)}\n" for module, names in by_module)
