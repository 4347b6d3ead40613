"""What every function of a deployment is made of: the adapters, chosen here and nowhere else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from durably.adapters.aws import AwsBackend, AwsSettings, Clients
from durably.adapters.aws.secrets import SecretTokenSigner
from durably.adapters.system import SystemClock, SystemEntropy
from durably.api.activity import Activity
from durably.api.orchestrator import Orchestrator
from durably.api.registry import Registry
from durably.aws.logs import IN_LAMBDA, configured
from durably.codec.payloads import PydanticCodec
from durably.ports.backend import Backend
from durably.ports.clock import Clock, Entropy
from durably.ports.tokens import TokenSigner
from durably.runtime.runtime import Budget, Limits, Runtime, unlimited

# A death takes its whole batch along until the visibility timeout ends, so what ended a process is tried again slowly.
# A message that was given back, because a service throttled, counts as received: with its pauses of 5, 10 and 20 s, the
# service has 35 s before that is taken for a deadly turn.
_LIMITS = Limits(deliveries_before_stall=5, deadly_pause_ms=60_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The adapters of one process, made once.

    Attributes:
        settings: names of the deployment's resources.
        limits: numbers that keep one execution from hurting others.
        code_version: of the orchestrators, recorded with each turn; by default as `Registry` has it.
        sleep: between two attempts at what the store refused.
    """

    settings: AwsSettings
    clients: Clients
    backend: AwsBackend
    clock: Clock
    entropy: Entropy
    signer: TokenSigner
    codec: PydanticCodec = field(default_factory=PydanticCodec)
    limits: Limits = _LIMITS
    code_version: str | None = None
    sleep: Callable[[float], None] = time.sleep

    @classmethod
    def from_environment(cls) -> Surroundings:
        """Those that the variables `DURABLY_*` describe.

        Raises:
            ConfigurationError: one is missing.
        """
        settings = AwsSettings.from_environment()
        clients, clock = Clients(), SystemClock()
        if IN_LAMBDA in os.environ:
            _ = clients.dynamodb, clients.sqs  # made while the function is initialised
        backend = AwsBackend(settings, clients=clients, clock=clock)
        return cls(
            settings=settings,
            clients=clients,
            backend=backend,
            clock=clock,
            entropy=SystemEntropy(),
            signer=SecretTokenSigner(settings, clients, clock),
        )

    def registry(
        self, orchestrators: Iterable[Orchestrator[..., Any]] = (), activities: Iterable[Activity[..., Any]] = ()
    ) -> Registry:
        """What a function knows by name.

        Raises:
            DefinitionError: two definitions share a name, or an annotation cannot be resolved.
        """
        return Registry(orchestrators, activities, codec=self.codec, code_version=self.code_version)

    def runtime(
        self,
        registry: Registry,
        *,
        backend: Backend | None = None,
        budget: Callable[[], AbstractContextManager[Budget]] = unlimited,
    ) -> Runtime:
        """What the use cases are given; `backend` instead of the one here."""
        return Runtime(
            backend=backend or self.backend,
            registry=registry,
            clock=self.clock,
            entropy=self.entropy,
            signer=self.signer,
            callback_url=self.settings.callback_url,
            limits=self.limits,
            budget=budget,
        )


def prepare_in_lambda(prepare: Callable[[], object]) -> None:
    """In a Lambda function, prepare while it is being initialised, when it has a whole processor.

    Elsewhere (a test, a linter, `durably template`) a function's file can be imported without any environment.
    """
    if IN_LAMBDA in os.environ:
        configured()
        prepare()
