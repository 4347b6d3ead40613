"""The local Lambda image: this machine's own distribution and its Python, with AWS's runtime interface client."""

from __future__ import annotations

import hashlib
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cloud.emulator import ROOT
from tests.sam_local.machine import Engine, MachineError, install, release_mounts, run, say

LOCK = ROOT / "requirements" / "lambda.txt"
CACHE = ROOT / "build" / "sam-local"
LABEL = "durably=sam-local"

# AWS's emulator of the runtime interface, which SAM adds, runs this with $_HANDLER set.
BOOTSTRAP = """\
#!/bin/sh
export PYTHONPATH="/var/task:/opt/python:/var/runtime${PYTHONPATH:+:$PYTHONPATH}"
exec python3 -m awslambdaric "$_HANDLER"
"""
ARM = platform.machine() in {"arm64", "aarch64"}
ARCHITECTURE = "arm64" if ARM else "x86_64"
PLATFORMS = [f"manylinux{glibc}_{'aarch64' if ARM else 'x86_64'}" for glibc in ("2014", "_2_17", "_2_28", "_2_34")]
NEEDLESS = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/cache/apt", "var/lib/apt/lists")


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What the image holds, as a tar file, and the runtime that it is."""

    tar: Path
    runtime: str

    @property
    def image(self) -> str:
        """The name under which SAM looks for it."""
        return f"public.ecr.aws/lambda/{self.runtime.replace('python', 'python:')}-{ARCHITECTURE}"


def file_system() -> FileSystem:
    """Made once per release of the distribution and per lock, and kept in build/."""
    release = _release()
    recipe = hashlib.sha256(LOCK.read_bytes() + BOOTSTRAP.encode()).hexdigest()[:12]
    name = f"{release}-{ARCHITECTURE}-{recipe}"
    for kept in CACHE.glob(f"{name}-python*.tar"):
        return FileSystem(kept, kept.stem.rpartition("-")[2])
    install("debootstrap")
    say(f"making the file system of the image from {release} ...")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="root-", dir=CACHE) as directory:
        root = Path(directory) / "root"
        try:
            python = _populate(root, release)
        finally:
            release_mounts(root)
        partial, tar = CACHE / f"{name}.partial", CACHE / f"{name}-{python}.tar"
        excluded = [f"--exclude=./{each}/*" for each in (*NEEDLESS, "dev", "proc", "sys")]
        run("tar", "--directory", root, *excluded, "--create", "--file", partial, ".", within=120)
        partial.rename(tar)
    return FileSystem(tar, python)


def _release() -> str:
    found = re.search(r'^VERSION_CODENAME="?([\w-]+)', Path("/etc/os-release").read_text(), re.MULTILINE)
    if found is None:
        raise MachineError("/etc/os-release names no release of a distribution that debootstrap could install.")
    return found[1]


def _populate(root: Path, release: str) -> str:
    """Returns the runtime."""
    asked = ["--variant=minbase", "--include=python3", release, str(root), *_mirror(release)]
    run("debootstrap", *asked, within=600)
    python = (root / "usr/bin/python3").readlink().name
    chosen = [f"--platform={each}" for each in PLATFORMS]
    run(
        *(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "install", "--no-deps"),
        *("--require-hashes", "--only-binary=:all:", "--no-compile", "--implementation=cp", *chosen),
        *(f"--python-version={python.removeprefix('python')}", "--target", root / "var/runtime", "--requirement", LOCK),
        within=300,
    )
    bootstrap = root / "var/runtime/bootstrap"
    bootstrap.write_text(BOOTSTRAP)
    bootstrap.chmod(0o755)
    for folder in ("var/task", "opt"):
        (root / folder).mkdir(exist_ok=True)
    return python


def _mirror(release: str) -> list[str]:
    """The one that this machine's apt takes this release from; debootstrap's own choice if there is none."""
    try:
        shown = run("apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", within=30)
    except MachineError:
        return []
    found = [line.split()[2] for line in shown.splitlines() if line.startswith(f"{release} main ")]
    return found[:1]


@contextmanager
def image(engine: Engine, files: FileSystem) -> Iterator[None]:
    """It is there under its name; an image that somebody else put there is taken as it is."""
    try:
        engine.docker("image", "inspect", files.image)
    except MachineError:
        engine.docker("import", f"--change=LABEL {LABEL}", files.tar, files.image, within=300)
    try:
        yield
    finally:
        if not engine.ours:  # else all of it goes with the engine
            _remove(engine, "ps", "rm")
            _remove(engine, "images", "rmi")


def _remove(engine: Engine, listing: str, removal: str) -> None:
    """Images hand their label down to those made from them, and to containers."""
    found = engine.docker(listing, "--all", "--quiet", f"--filter=label={LABEL}").split()
    if found:
        engine.docker(removal, "--force", *dict.fromkeys(found), within=120)
