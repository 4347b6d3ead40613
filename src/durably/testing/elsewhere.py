"""`python -m durably.testing.elsewhere < ORDER`: replay histories in a process of its own.

The order is a JSON object: `orchestrators`, each as module, file and name, and `histories`, each an exported one.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from types import ModuleType
from typing import Any, cast

from durably.api.orchestrator import Orchestrator
from durably.api.registry import Registry
from durably.codec.exports import decode_export
from durably.codec.payloads import PydanticCodec
from durably.core.errors import Stall
from durably.testing.guard import refuse_io
from durably.testing.replaying import replay_history
from durably.testing.safety import check_here


def main() -> int:
    """Exit code 0 if the code agrees with the histories; else 1, and why on standard error."""
    order = json.load(sys.stdin)
    refuse_io()
    found = [
        one for module, file, name in order["orchestrators"] for one in _orchestrators(_imported(module, file), name)
    ]
    registry = Registry(found, codec=PydanticCodec())
    try:
        for document in order["histories"]:
            history = decode_export(document)
            replay_history(history, registry)
            check_here(history, registry)
    except Stall as stall:
        print(stall, file=sys.stderr)  # noqa: T201  # what the parent process tells on
        return 1
    return 0


def _imported(name: str, file: str) -> ModuleType:
    """The module by its name, or, where that means nothing or something else here, from its file."""
    try:
        module = importlib.import_module(name)
        if getattr(module, "__file__", None) == file:
            return module
    except ImportError:
        pass
    own_name = f"durably_replayed_{name.replace('.', '_')}"
    spec = importlib.util.spec_from_file_location(own_name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[own_name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _orchestrators(module: ModuleType, name: str) -> list[Orchestrator[..., Any]]:
    found = [cast("Orchestrator[..., Any]", one) for one in vars(module).values() if isinstance(one, Orchestrator)]
    return [one for one in found if one.name == name][:1]


if __name__ == "__main__":
    sys.exit(main())
