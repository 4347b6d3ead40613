"""What the environment says, and the names that are made from it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from durably.adapters.aws import AwsSettings, Clients, keys
from durably.core.errors import ConfigurationError
from tests.contract.builders import RUN, run_key

ENVIRONMENT = {
    "DURABLY_DEPLOYMENT": "prod",
    "DURABLY_TABLE": "table",
    "DURABLY_CALLBACK_URL": "https://x.example/prod/",
    "DURABLY_ACTIVITY_QUEUES": json.dumps({"https://q/1": ["get_route", "transmit"], "https://q/2": ["bill"]}),
}


def test_settings_come_from_the_environment() -> None:
    settings = AwsSettings.from_environment(ENVIRONMENT)
    assert (settings.deployment, settings.table, settings.bucket) == ("prod", "table", "")
    assert settings.callback_url == "https://x.example/prod"
    assert settings.activity_queues == {"get_route": "https://q/1", "transmit": "https://q/1", "bill": "https://q/2"}


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigurationError, match="DURABLY_BUCKET, DURABLY_EVENTS_QUEUE"):
        AwsSettings.from_environment(ENVIRONMENT, needs=["table", "bucket", "events_queue"])


@pytest.mark.parametrize("text", ["[", "[]", '{"q": "a"}', '{"q": [1]}', '{"q": ["a"], "r": ["a"]}'])
def test_activity_queues_of_another_shape_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="DURABLY_ACTIVITY_QUEUES"):
        AwsSettings.from_environment({**ENVIRONMENT, "DURABLY_ACTIVITY_QUEUES": text})


def test_importing_the_adapter_imports_neither_boto3_nor_botocore() -> None:
    program = "import sys, durably.adapters.aws, durably.adapters.aws.secrets, durably.adapters.aws.metering\n"
    program += "print([name for name in ('boto3', 'botocore', 'moto') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_making_clients_needs_no_boto3() -> None:
    program = "import sys\nfrom durably.adapters.aws import Clients\n"
    program += "Clients(region='eu-west-1').dynamodb\nprint('boto3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_call_gives_up_before_the_function_does() -> None:
    clients = Clients(region="eu-west-1")
    for client in (clients.dynamodb, clients.sqs, clients.scheduler, clients.secretsmanager):
        config: Any = client.meta.config
        assert config.retries == {"mode": "standard", "total_max_attempts": 3}
        assert 3 * config.read_timeout + 1 + 2 <= 10  # boto waits up to 1 s, then up to 2 s
    assert clients.sqs is clients.sqs


def test_no_two_things_have_one_name() -> None:
    runs = [RUN, run_key(run=2), run_key(run=11), run_key("packet-42#x")]
    names = [keys.record_key("packet-42")]
    names += [keys.turn_key(run, number) for run in runs for number in (1, 2, 10, 99_999_999, 100_000_000)]
    assert len(set(names)) == len(names)
    assert [keys.turn_number(sort) for _, sort in names[1:4]] == [1, 2, 10]


def test_turns_and_items_sort_by_their_numbers() -> None:
    turns = [keys.turn_key(RUN, number)[1] for number in (1, 9, 10, 99_999_999)]
    assert turns == sorted(turns)
    assert all(turn < keys.last_turn(RUN) for turn in turns)
    assert keys.status_sort(5, "b") < keys.status_sort(10, "a") < keys.status_sort(10, "b")
