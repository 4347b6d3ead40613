"""A directory for the database files, on a disk: in memory a commit would cost nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


@contextmanager
def scratch_directory(parent: Path | None = None) -> Iterator[Path]:
    """A fresh directory, removed afterwards: in `parent`, else in the first usual place that is on a disk."""
    if parent is None:
        places = [Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd()]
        parent = next((place for place in places if place.is_dir() and not _in_memory(place)), Path.cwd())
    with tempfile.TemporaryDirectory(prefix="durably-bench-", dir=parent) as directory:
        yield Path(directory)


def _in_memory(place: Path) -> bool:
    """Whether the innermost mount that holds `place` has no disk. False where there is no /proc."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return False
    kinds = {Path(fields[1]): fields[2] for fields in map(str.split, mounts.read_text().splitlines())}
    real = place.resolve()
    holders = [mount for mount in kinds if real.is_relative_to(mount)]
    return bool(holders) and kinds[max(holders, key=lambda mount: len(mount.parts))] in _IN_MEMORY
