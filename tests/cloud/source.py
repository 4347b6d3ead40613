"""The project that the stories are deployed from: this one's template, and other orchestrators and activities."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cloud.emulator import ROOT, surroundings
from tests.infra.reading import DEPLOYED

HERE = Path(__file__).parent / "project"
STORIES = Path("orchestrators") / "stories.py"


def write_project(folder: Path) -> None:
    """Copy this project, add the stories, and let `durably template` write what their activities and triggers need."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("infra", "orchestrators", "activities", "src", "requirements"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "template.yaml", folder)
    for name in ("orchestrators", "activities"):
        shutil.copytree(HERE / name, folder / name, ignore=ignored, dirs_exist_ok=True)
    (folder / "infra/functions/user_onboarding_activities.txt").unlink()  # it is not run here, and takes long to build
    shutil.copytree(HERE / "functions", folder / "infra" / "functions", ignore=ignored, dirs_exist_ok=True)
    added = sorted(
        file.relative_to(HERE).as_posix() for file in HERE.glob("*s/*.py") if file.parent.name != "functions"
    )
    deployed = [*DEPLOYED, *added]
    command = [sys.executable, "-m", "durably.cli", "template", "--update", *deployed]
    subprocess.run(command, cwd=folder, env=surroundings(), check=True, capture_output=True, timeout=60)


def set_version(folder: Path, version: int) -> None:
    """Edit the stories: some behave differently in each version."""
    file = folder / STORIES
    text, changed = re.subn(r"^VERSION = \d+$", f"VERSION = {version}", file.read_text(), flags=re.MULTILINE)
    assert changed == 1
    file.write_text(text)
