"""Who holds leases, and who of them is dead. For its lifetime each backend instance holds the operating
system's lock on a file of its own, `<database>-owners/<number>.lock`. The system releases the lock however
the process ends, kill -9 included; whoever then finds the lock free gives the dead owner's messages back at once
and removes the file. No two owners that have a file, and none whose leases are not given back, share a number.

Locks belong to open files, so two instances in one process are two owners. A forked child closes its copy.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import SystemRandom

from durably.adapters.sqlite.schema import OWNER_BITS
from durably.core.errors import StorageError

_SUFFIX = ".lock"
_random = SystemRandom()

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _try_lock(file: int) -> bool:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


class Owner:
    """This instance's number and its lock.

    Attributes:
        number: positive, of `schema.OWNER_BITS` bits.
    """

    def __init__(self, database: str) -> None:
        self._directory = Path(f"{database}-owners")
        try:
            self._directory.mkdir(exist_ok=True)
            self.number, self._file = self._register()
        except OSError as error:
            raise StorageError(
                f"{self._directory} cannot be written: {error}. durably keeps its owners' lock files there: "
                "this process must be allowed to create files beside the database."
            ) from error
        _living.add(self)

    def close(self) -> None:
        """Give up the lock and the file. Idempotent."""
        if self._file >= 0:
            self.abandon()
            _remove(self._path(self.number))

    def abandon(self) -> None:
        """Close the lock's file and leave it there, as death would; in a forked child the parent keeps it."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def others(self) -> list[int]:
        """The numbers of the other owners that have a lock file, alive or dead."""
        try:
            names = [path.name for path in self._directory.iterdir()]
        except OSError:  # somebody removed it: whoever opens the file next gives back what the dead hold
            return []
        numbers = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
        return [int(number) for number in numbers if number.isdecimal() and int(number) != self.number]

    @contextmanager
    def burying(self, number: int) -> Generator[bool, None, None]:
        """Whether owner `number` is dead; if so nobody else buries it within; then its file is removed."""
        path = self._path(number)
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            yield True
            return
        except OSError:
            yield False
            return
        try:
            dead = _try_lock(file)
            yield dead
            if dead and sys.platform != "win32":
                _remove(path)  # while the lock is held: `_register` relies on it
        finally:
            os.close(file)
        if dead and sys.platform == "win32":  # pragma: no cover  # open files cannot be removed there
            _remove(path)

    def _register(self) -> tuple[int, int]:
        while True:
            number = _random.randrange(1, 2**OWNER_BITS)
            path = self._path(number)
            try:
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                continue
            # between creation and lock somebody may have taken us for dead: then the file is locked, or gone
            if _try_lock(file) and path.exists():
                return number, file
            os.close(file)

    def _path(self, number: int) -> Path:
        return self._directory / f"{number}{_SUFFIX}"


def _remove(path: Path) -> None:
    with suppress(OSError):  # gone already; or left to the next who looks
        path.unlink()


_living: weakref.WeakSet[Owner] = weakref.WeakSet()


def _abandon_all() -> None:
    for owner in list(_living):
        owner.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
