"""The test kit: orchestrators run by the real runtime, in memory, in virtual time, with activities mocked.

What users import; everything is loaded when first asked for, so that the pytest plugin costs nothing where unused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durably.testing.callbacks import OpenCallback as OpenCallback
    from durably.testing.environment import Environment as Environment
    from durably.testing.errors import CallbackRefusedError as CallbackRefusedError
    from durably.testing.errors import MockError as MockError
    from durably.testing.errors import WaitsForEverError as WaitsForEverError
    from durably.testing.histories import assert_in_order as assert_in_order
    from durably.testing.histories import outline as outline
    from durably.testing.mocks import Call as Call
    from durably.testing.mocks import CallbackMock as CallbackMock
    from durably.testing.mocks import Mock as Mock
    from durably.testing.replaying import Replayed as Replayed
    from durably.testing.replaying import replay as replay
    from durably.testing.safety import assert_replay_safe as assert_replay_safe

_HOMES = {
    "durably.testing.callbacks": ("OpenCallback",),
    "durably.testing.environment": ("Environment",),
    "durably.testing.errors": ("CallbackRefusedError", "MockError", "WaitsForEverError"),
    "durably.testing.histories": ("assert_in_order", "outline"),
    "durably.testing.mocks": ("Call", "CallbackMock", "Mock"),
    "durably.testing.replaying": ("Replayed", "replay"),
    "durably.testing.safety": ("assert_replay_safe",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Call",
    "CallbackMock",
    "CallbackRefusedError",
    "Environment",
    "Mock",
    "MockError",
    "OpenCallback",
    "Replayed",
    "WaitsForEverError",
    "assert_in_order",
    "assert_replay_safe",
    "outline",
    "replay",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'durably.testing' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
