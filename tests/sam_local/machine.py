"""What this machine lends: commands with a limit of time, packages of the distribution, a container engine."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.cloud.emulator import surroundings

BRIDGE = "docker0"
PACKAGES = {"dockerd": "docker.io", "docker": "docker-cli", "debootstrap": "debootstrap", "ip": "iproute2"}
START_WITHIN_S = 60.0
STOP_WITHIN_S = 30.0


class MachineError(Exception):
    """This machine cannot do what was asked of it."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(*command: str | Path, within: float, more: Mapping[str, str] | None = None) -> str:
    """What a command printed; it must succeed."""
    try:
        done = subprocess.run(
            command,
            env=surroundings() | dict(more or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"{' '.join(map(str, command))} took more than {within:g} s") from error
    if done.returncode != 0:
        said = f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}".strip()
        raise MachineError(f"{' '.join(map(str, command))} failed with {done.returncode}:\n{said}")
    return done.stdout


def install(*commands: str) -> None:
    """Let apt install what brings these commands, in this order, where they are missing.

    In Debian 12 docker.io brings `docker` along; in later ones docker-cli does.
    """
    updated = False
    for command in commands:
        if shutil.which(command):
            continue
        package = PACKAGES[command]
        say(f"installing {package} ...")
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        if not updated:
            run("apt-get", "update", within=300, more=quiet)
            updated = True
        run("apt-get", "install", "--yes", "--no-install-recommends", package, within=600, more=quiet)


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine that answers.

    Attributes:
        environment: tells `docker` and SAM where it listens.
        gateway: this machine's address, as containers see it.
        ours: whether it was started here, and ends here with all it holds.
    """

    environment: Mapping[str, str]
    gateway: str
    ours: bool

    def docker(self, *arguments: str | Path, within: float = 60) -> str:
        return run("docker", *arguments, within=within, more=self.environment)


@contextmanager
def engine() -> Iterator[Engine]:
    """The one that runs, or else one of our own for as long as this takes."""
    if _answers({}):
        install("docker", "ip")
        yield Engine({}, _gateway(), ours=False)
        return
    install("dockerd", "docker", "ip")
    if _answers({}):  # where there is systemd, installing it started it
        yield Engine({}, _gateway(), ours=False)
        return
    with tempfile.TemporaryDirectory(prefix="durably-engine-", ignore_cleanup_errors=True) as directory:
        yield from _own(Path(directory))


def _own(directory: Path) -> Iterator[Engine]:
    """Changes nothing outside of its directory but the bridge: containers talk to this machine only."""
    had_bridge = Path("/sys/class/net", BRIDGE).exists()
    environment = {"DOCKER_HOST": f"unix://{directory}/docker.sock"}
    command = ["dockerd", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
    command += [f"--host={environment['DOCKER_HOST']}", f"--pidfile={directory}/pid"]
    command += [f"--data-root={directory}/data", f"--exec-root={directory}/exec"]
    log = directory / "log"
    with log.open("w") as sink:
        process = subprocess.Popen(command, env=surroundings(), stdout=sink, stderr=sink, start_new_session=True)
    try:
        deadline = time.monotonic() + START_WITHIN_S
        while not _answers(environment):
            if process.poll() is not None or time.monotonic() > deadline:
                raise MachineError(f"dockerd did not start; its log:\n{log.read_text()[-3000:]}")
            time.sleep(0.2)
        yield Engine(environment, _gateway(), ours=True)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        release_mounts(directory)
        if not had_bridge and Path("/sys/class/net", BRIDGE).exists():
            run("ip", "link", "delete", BRIDGE, within=10)


def release_mounts(directory: Path) -> None:
    """Unmount whatever is mounted below a directory, so that removing it removes nothing else."""
    places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in sorted(places, reverse=True):
        if place.startswith(f"{directory}/"):
            run("umount", "--lazy", place, within=10)


def _answers(environment: Mapping[str, str]) -> bool:
    if not shutil.which("docker"):
        return False
    try:
        run("docker", "version", "--format", "{{.Server.Version}}", within=20, more=environment)
    except MachineError:
        return False
    return True


def _gateway() -> str:
    shown = run("ip", "-oneline", "-4", "address", "show", BRIDGE, within=10)
    found = re.search(r"inet ([\d.]+)/", shown)
    if found is None:
        raise MachineError(f"The engine has no bridge {BRIDGE} with an address that containers could reach: {shown!r}")
    return found[1]
