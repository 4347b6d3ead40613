"""All statements, and the registry of the one orchestrator and the activities that they call."""

from __future__ import annotations

from durably.api.registry import Registry
from durably.codec.payloads import PydanticCodec
from tests.simulation.activities import ACTIVITIES
from tests.simulation.concurrent import CONCURRENT
from tests.simulation.conversing import CONVERSING
from tests.simulation.hearts import HEARTS
from tests.simulation.interpret import STATEMENTS, interpret
from tests.simulation.sequential import SEQUENTIAL
from tests.simulation.together import TOGETHER

STATEMENTS.update({**SEQUENTIAL, **CONCURRENT, **CONVERSING, **TOGETHER})
REGISTRY = Registry([interpret], [*ACTIVITIES, *HEARTS], codec=PydanticCodec(verify="always"), code_version="simulated")
