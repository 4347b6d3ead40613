"""The locks: hashed, complete on every supported Python and system, silent about where they came from."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib import metadata
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
STORIES = sorted(path.name for path in REQUIREMENTS.glob("story-*.txt"))
LOCKS = ["core.txt", "aws.txt", *STORIES, "dev.txt", "sam.txt", "cloud.txt", "lambda.txt", "checkov.txt", "lock.txt"]

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
SYSTEMS = [("linux", "Linux", "x86_64"), ("linux", "Linux", "aarch64"), ("darwin", "Darwin", "arm64")]

each_lock = pytest.mark.parametrize("lock", LOCKS)


@cache
def pins(lock: str) -> dict[NormalizedName, Version]:
    found = re.findall(r"^([\w.-]+)==(\S+)", (REQUIREMENTS / lock).read_text(), re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in found}


def asked_for(source: str) -> list[Requirement]:
    lines = [line.partition("#")[0].strip() for line in (REQUIREMENTS / source).read_text().splitlines()]
    own = [Requirement(line) for line in lines if line and not line.startswith("-")]
    included = [line.removeprefix("-r ") for line in lines if line.startswith("-r ")]
    return own + [requirement for name in included for requirement in asked_for(name)]


def environments() -> list[dict[str, str]]:
    return [
        {
            "python_version": python,
            "python_full_version": f"{python}.0",
            "sys_platform": platform,
            "platform_system": system,
            "platform_machine": machine,
        }
        for python, (platform, system, machine) in product(PYTHONS, SYSTEMS)
    ]


def needs(requirement: Requirement, environment: dict[str, str]) -> list[Requirement]:
    """What an installed distribution needs, with the extras asked of it, in that environment."""
    declared = [Requirement(line) for line in metadata.requires(requirement.name) or []]
    extras = ["", *requirement.extras]
    return [
        need
        for need in declared
        if need.marker is None or any(need.marker.evaluate({**environment, "extra": extra}) for extra in extras)
    ]


@each_lock
def test_a_lock_names_no_address(lock: str) -> None:
    text = (REQUIREMENTS / lock).read_text()
    addresses = [line for line in text.splitlines() if re.search(r"://|file:/", line)]
    options = [line for line in text.splitlines() if line.startswith("-")]
    assert not addresses + options


@each_lock
def test_every_pin_has_its_hashes(lock: str) -> None:
    text = (REQUIREMENTS / lock).read_text()
    blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pins(lock)) > 0
    assert not [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block]


@pytest.mark.parametrize("lock", ["core.txt", "aws.txt", *STORIES, "dev.txt"])
def test_a_lock_is_complete_on_every_supported_python_and_system(lock: str) -> None:
    missing: set[str] = set()
    for environment in environments():
        waiting, seen = asked_for(lock.replace(".txt", ".in")), set[str]()
        while waiting:
            requirement = waiting.pop()
            if str(requirement) in seen:
                continue
            seen.add(str(requirement))
            pinned = pins(lock).get(canonicalize_name(requirement.name))
            if pinned is None or pinned not in requirement.specifier:
                missing.add(f"{requirement} on Python {environment['python_version']}, {environment['sys_platform']}")
            else:
                waiting += needs(requirement, environment)
    assert not missing


@pytest.mark.parametrize("lock", ["core.txt", "aws.txt", *STORIES])
def test_the_dev_lock_extends_what_is_deployed(lock: str) -> None:
    assert pins(lock).items() <= pins("dev.txt").items()


def test_the_core_lock_holds_what_the_project_needs_to_build_and_run() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    assert specifiers(asked_for("core.in")) == specifiers([Requirement(line) for line in needed])


def specifiers(requirements: list[Requirement]) -> dict[NormalizedName, str]:
    return {canonicalize_name(each.name): str(each.specifier) for each in requirements}
