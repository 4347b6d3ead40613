"""Two stacks in one emulator: this project as it is, and the stories. Only `make cloud-test` runs these tests: they
need SAM and ministack, each in an environment of its own.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.cloud.deployment import Deployment
from tests.cloud.emulator import ROOT, Emulator
from tests.cloud.source import write_project
from tests.cloud.stack import Stack
from tests.cloud.transmit import TransmitService

WITHIN_S = 1500

_running: list[Emulator] = []

if os.environ.get("DURABLY_CLOUD_TESTS") != "1":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def bounded_time() -> Iterator[None]:
    """However it goes, it ends, and fixtures clean up."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"the cloud tests took more than {WITHIN_S} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(WITHIN_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure tells what the functions said last."""
    report = yield
    if report.failed and _running:
        report.sections.append(("ministack and its functions", _running[-1].log.read_text()[-20_000:]))
    return report


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("emulator")) as running:
        _running.append(running)
        yield running


@pytest.fixture(scope="session")
def transmit_service() -> Iterator[TransmitService]:
    with TransmitService() as service:
        yield service


@pytest.fixture(scope="session")
def users_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the onboarding story keeps its users: a SQL database that functions, which run on this machine, reach."""
    return tmp_path_factory.mktemp("users") / "users.db"


@pytest.fixture(scope="session")
def routing(
    emulator: Emulator,
    transmit_service: TransmitService,
    users_database: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Stack:
    """The stack that `sam build && sam deploy` makes of this project, unchanged."""
    work = tmp_path_factory.mktemp("routing")
    parameters = {"RoutingServiceUrl": transmit_service.url, "DatabaseUrl": f"sqlite:///{users_database}"}
    deployment = Deployment(emulator, ROOT, "routing", work, **parameters)
    deployment.bring_up()
    return Stack(deployment)


@pytest.fixture(scope="session")
def stories(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """The stack of the stories. A turn that died is taken again after 12 s, not 60."""
    work = tmp_path_factory.mktemp("stories")
    write_project(work / "project")
    parameters = {"TurnVisibilitySeconds": "12", "CleanedUpExpression": "at(2099-01-01T00:00:00)"}
    deployment = Deployment(emulator, work / "project", "stories", work, **parameters)
    topic = deployment.client("sns").create_topic(Name="arrivals")["TopicArn"]
    deployment.parameters["AnnouncedTopic"] = topic
    deployment.bring_up()
    return Stack(deployment)


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """A folder where functions, which run on this machine, leave marks."""
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder
