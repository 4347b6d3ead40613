"""A deployment on moto for each test."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from durably import Orchestrator
from durably.adapters.aws import AwsBackend
from durably.adapters.aws.secrets import SecretTokenSigner
from durably.adapters.system import SystemEntropy
from durably.api.registry import Registry
from durably.client import Client
from durably.codec.payloads import PydanticCodec
from durably.runtime.runtime import Runtime
from durably.runtime.turn import TurnTaker
from tests.contract.aws import Cloud, SqsSource, cloud
from tests.contract.harness import ManualClock
from tests.unit.adapters.aws.worker import Deploy, Worker, double


@pytest.fixture
def made() -> Iterator[Cloud]:
    with cloud(ManualClock()) as deployed:
        yield deployed


@pytest.fixture
def backend(made: Cloud) -> AwsBackend:
    return made.backend()


@pytest.fixture
def deploy(made: Cloud) -> Deploy:
    made.settings = dataclasses.replace(made.settings, activity_queues={"double": made.settings.activity_queues["act"]})

    def deployed(*definitions: Orchestrator[..., Any]) -> Worker:
        backend, entropy = made.backend(), SystemEntropy()
        registry = Registry(definitions, [double], codec=PydanticCodec())
        runtime = Runtime(
            backend=backend,
            registry=registry,
            clock=made.clock,
            entropy=entropy,
            signer=SecretTokenSigner(made.settings, made.clients, made.clock),
            callback_url=made.settings.callback_url,
        )
        client = Client(backend, registry, made.clock, entropy)
        return Worker(made, backend, SqsSource(made, backend), runtime, TurnTaker(runtime), client)

    return deployed
