"""`durably dev`: what it says, how it reloads, how it ends."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.e2e.cli.project import ACTIVITIES, HELLO, PATIENCE_S, Project, eventually

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals")]


def test_dev_says_what_it_runs_and_the_command_it_proposes_works(project: Project) -> None:
    dev = project.dev()
    dev.says("  try ")
    assert re.search(r"callbacks arrive at http://127\.0\.0\.1:\d+\n", dev.said)
    assert "orchestrators  asking, failing, hello, sleepy, unfortunate\n" in dev.said
    assert "activities     ask, greet, slow, unlucky\n" in dev.said
    proposed = re.findall(r"try +durably (.*)\n", dev.said)[0]
    assert project.run(*shlex.split(proposed)).stdout == '"Hello, name!"\n'
    dev.says("durably.orchestrator.hello [hello-1]: greeting name")
    assert "Traceback" not in dev.said
    assert dev.ends() == 0
    assert sorted(path.name for path in project.directory.iterdir() if "durably" in path.name) == [
        "durably.db",
        "durably.db-owners",
    ]
    assert not list((project.directory / "durably.db-owners").iterdir())


def test_dev_takes_up_what_is_edited_and_what_it_imports(project: Project) -> None:
    dev = project.dev()
    port = re.findall(r":(\d+)\n", dev.said)
    project.write("activities/work.py", ACTIVITIES.replace("}!", "}?"))
    dev.says("activities/work.py changed, reloading")
    dev.says("durably serves", times=2)
    assert project.run(*HELLO, "--wait", "10").stdout == '"Hello, World?"\n'
    project.write("texts.py", 'GREETING = "Jello"\n')
    dev.says("texts.py changed, reloading")
    dev.says("durably serves", times=3)
    done = project.run("start", "hello", "hello-2", "--input", '{"person": {"name": "World"}}', "--wait", "10")
    assert done.stdout == '"Jello, World?"\n'
    assert re.findall(r":(\d+)\n", dev.said) == port * 3
    assert dev.ends() == 0


def test_dev_shows_what_cannot_be_imported_and_waits_for_it_to_be_mended(project: Project) -> None:
    project.write("activities/work.py", ACTIVITIES + "    def (\n")
    dev = project.dev(ready=False)
    dev.says("waiting for a change")
    assert "SyntaxError: invalid syntax" in dev.said
    assert re.search(r"cannot be imported: SyntaxError: invalid syntax \(activities/work\.py:\d+\)", dev.said)
    assert "discovery.py" not in dev.said
    project.write("activities/work.py", ACTIVITIES + "    import nowhere\n")
    dev.says("waiting for a change", times=2)
    assert "ModuleNotFoundError: No module named 'nowhere'" in dev.said
    project.write(
        "activities/work.py", ACTIVITIES + "    activity(name='greet')(len)\n    echo = activity(name='greet')(len)"
    )
    dev.says("waiting for a change", times=3)
    assert "share the persisted name 'greet'" in dev.said
    project.write("activities/work.py", ACTIVITIES)
    dev.says("durably serves")
    assert project.run(*HELLO, "--wait", "10").stdout == '"Hello, World!"\n'
    assert dev.ends(signal.SIGINT) == 0


@pytest.mark.parametrize("how", ["told to end", "reload", "no reload"])
def test_dev_finishes_what_runs_and_runs_it_once(project: Project, how: str) -> None:
    dev = project.dev(*(["--no-reload"] if how == "no reload" else []))
    project.run("start", "sleepy", "sleepy-1", "--input", '{"seconds": 1.0}')
    log = project.directory / "log.txt"
    eventually(log.exists)
    if how == "reload":
        project.write("texts.py", 'GREETING = "Goodbye"\n')
        dev.says("durably serves", times=2)
    else:
        assert dev.ends() == 0
    assert log.read_text() == "began\nended\n"
    assert project.run("result", "sleepy-1").stdout == '"slept"\n'


def test_a_worker_that_is_killed_is_replaced_and_what_it_ran_runs_again(project: Project) -> None:
    dev = project.dev()
    project.run("start", "sleepy", "sleepy-1", "--input", '{"seconds": 0.8}')
    log = project.directory / "log.txt"
    eventually(log.exists)
    os.kill(dev.worker(), signal.SIGKILL)
    dev.says("the worker was killed by SIGKILL")
    assert project.run("result", "sleepy-1", "--wait", "10").stdout == '"slept"\n'
    assert log.read_text() == "began\nbegan\nended\n"


def test_a_worker_does_not_outlive_its_supervisor(project: Project) -> None:
    dev = project.dev()
    worker = dev.worker()
    dev.process.kill()
    dev.process.wait()

    def gone() -> bool:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{worker}/stat").exists() and ") Z " in Path(f"/proc/{worker}/stat").read_text()

    eventually(gone)


def test_a_callback_url_stays_valid_across_reloads(project: Project) -> None:
    dev = project.dev()
    project.run("start", "asking", "asking-1")
    url = project.directory / "url.txt"
    eventually(url.exists)
    shown = project.json("show", "asking-1")
    assert shown["activities"][0]["state"] == "open"
    project.write("texts.py", 'GREETING = "Goodbye"\n')
    dev.says("durably serves", times=2)
    request = Request(url.read_text(), data=b'"answer"', headers={"Content-Type": "application/json"})
    with urlopen(request, timeout=PATIENCE_S) as response:
        assert response.status == 200
    assert project.run("result", "asking-1", "--wait", "10").stdout == '"answer"\n'


def test_dev_without_a_path_runs_orchestrators_and_activities(project: Project) -> None:
    dev = project.dev(paths=())
    assert "activities     ask, greet, slow, unlucky\n" in dev.said
    assert project.run(*HELLO, "--wait", "10").stdout == '"Hello, World!"\n'
    assert dev.ends() == 0


def test_dev_tells_of_attempts_that_failed(project: Project) -> None:
    dev = project.dev()
    project.run("start", "unfortunate", "unfortunate-1")
    dev.says("durably.activity [unfortunate-1]: attempt 1 of unlucky failed: ConnectionError: no luck\n")
    assert dev.ends() == 0


def test_dev_refuses_what_cannot_work(project: Project) -> None:
    assert "nowhere does not exist" in project.refused("dev", "nowhere")
    project.write("empty/nothing.py", "")
    project.write("junk.db", "this is no database, " * 100)
    done = project.run("dev", "orchestrators", "--db", "junk.db", "--port", "0", code=1)
    assert "junk.db cannot be used: file is not a database" in done.stderr
    dev = project.dev()
    port = re.findall(r":(\d+)\n", dev.said)[0]
    done = project.run("dev", "orchestrators", "--db", "other.db", "--port", port, code=1)
    assert "cannot listen on" in done.stderr
    assert "Choose another port" in done.stderr
