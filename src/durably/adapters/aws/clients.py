"""boto3 clients, made once and when first needed, with retries and time-outs set on purpose.

A turn's function ends after 10 s, so a call that hangs must give up early enough for the rest: at worst
3 attempts x 2 s + back-off. All writes are conditional or idempotent, so boto may repeat each of them.
`AWS_ENDPOINT_URL` points every client at a local cloud.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from botocore.session import Session
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient

_Service = Literal["dynamodb", "sqs", "s3", "scheduler", "secretsmanager", "cloudformation", "lambda"]
_ATTEMPTS = 3
_CONNECT_S = 1.0
_READ_S: dict[_Service, float] = {
    "dynamodb": 2.0,
    "sqs": 2.0,
    "scheduler": 2.0,
    "secretsmanager": 2.0,
    "s3": 5.0,  # bodies of megabytes
    "cloudformation": 5.0,
    "lambda": 5.0,
}
_CONNECTIONS = 32

Observer = Callable[[Any], None]


class Clients:
    """The clients of one process. Safe to share between threads.

    Args:
        region: None takes the one of the environment.
        observers: called with each client made; metering and fault injection register botocore events.
    """

    def __init__(self, *, region: str | None = None, observers: Sequence[Observer] = ()) -> None:
        self._region = region
        self._observers = tuple(observers)
        self._lock = Lock()
        self._made: dict[_Service, Any] = {}
        self._session: Session | None = None  # one for all: it holds the parsed service models

    @property
    def dynamodb(self) -> DynamoDBClient:
        """Records, turns, items."""
        client: DynamoDBClient = self._client("dynamodb")
        return client

    @property
    def sqs(self) -> SQSClient:
        """Messages."""
        client: SQSClient = self._client("sqs")
        return client

    @property
    def s3(self) -> S3Client:
        """Bodies that fit nowhere else."""
        client: S3Client = self._client("s3")
        return client

    @property
    def scheduler(self) -> EventBridgeSchedulerClient:
        """Messages that are due in more than 900 s."""
        client: EventBridgeSchedulerClient = self._client("scheduler")
        return client

    @property
    def secretsmanager(self) -> SecretsManagerClient:
        """Token keys."""
        client: SecretsManagerClient = self._client("secretsmanager")
        return client

    @property
    def cloudformation(self) -> Any:
        """Where a stack's functions are, for the command line."""
        return self._client("cloudformation")

    @property
    def functions(self) -> Any:
        """What a stack's functions are told, for the command line."""
        return self._client("lambda")

    def _client(self, service: _Service) -> Any:
        made = self._made.get(service)
        if made is not None:
            return made
        with self._lock:  # making clients is not thread-safe in boto3, using them is
            if service not in self._made:
                self._made[service] = self._make(service)
            return self._made[service]

    def _make(self, service: _Service) -> Any:
        import botocore.session
        from botocore.config import Config

        if self._session is None:
            self._session = botocore.session.get_session()

        config = Config(
            connect_timeout=_CONNECT_S,
            read_timeout=_READ_S[service],
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            max_pool_connections=_CONNECTIONS,
            tcp_keepalive=True,
            user_agent_extra="durably",
        )
        client = self._session.create_client(service, region_name=self._region, config=config)
        for observe in self._observers:
            observe(client)
        return client
