"""A disk that fails, or a machine that dies, at the k-th operation."""

import errno
import os
from pathlib import Path

GROW = {"open", "write", "fsync", "mkdir"}  # what a full disk refuses


class Killed(BaseException):
    """The process is no more: nothing that it does from here on reaches the disk."""


class Disk:
    """Stands in for `os` while `with` lasts. `at` counts operations from 0; `log` lists them.

    fault: "fail" (this operation alone), "full" (from it on whatever needs space), "kill" (from it on everything),
    "power" (the same, and files that were not flushed are empty afterwards), or None.
    """

    def __init__(self, fault: str | None = None, at: int = 0):
        self.fault, self.at, self.log = fault, at, []
        self.dirty: dict[int, Path] = {}
        self.struck = False

    def __enter__(self):
        names = ("open", "fdopen", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir")
        self.real = {name: getattr(os, name) for name in names}
        for name in names:
            setattr(os, name, getattr(self, f"do_{name}", None) or self.wrap(name))
        return self

    def __exit__(self, kind, error, trace):
        for name, call in self.real.items():
            setattr(os, name, call)
        if self.fault == "power" and self.struck:
            for path in self.dirty.values():
                for place in (path, *path.parent.parent.rglob("*")):
                    if place.is_file() and place.stat().st_ino in self.dirty:
                        place.write_bytes(b"")
        return kind is Killed

    def tick(self, name: str, target) -> None:
        number = len(self.log)
        self.log.append((name, str(target)))
        if self.fault is None or number < self.at:
            return
        if self.fault in ("kill", "power"):
            self.struck = True
            raise Killed
        if (self.fault == "fail" and number == self.at) or (self.fault == "full" and name in GROW):
            self.struck = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def wrap(self, name):
        def call(*args, **kwargs):
            self.tick(name, args[-1] if name in ("rename", "replace") else args[0])
            return self.real[name](*args, **kwargs)

        return call

    def do_open(self, path, flags, *args, **kwargs):
        self.tick("open" if flags & os.O_CREAT else "read", path)
        return self.real["open"](path, flags, *args, **kwargs)

    def do_fdopen(self, descriptor, mode="r", **kwargs):
        return File(self, self.real["fdopen"](descriptor, mode, **kwargs))

    def do_fsync(self, descriptor):
        status = os.fstat(descriptor)
        self.tick("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
        self.dirty.pop(status.st_ino, None)


class File:
    """A file whose `write` may stop halfway."""

    def __init__(self, disk, file):
        self.disk, self.file = disk, file

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *why):
        return self.file.__exit__(*why)

    def write(self, data):
        self.disk.dirty[os.fstat(self.file.fileno()).st_ino] = Path(os.readlink(f"/proc/self/fd/{self.file.fileno()}"))
        try:
            self.disk.tick("write", "")
        except BaseException:
            self.file.write(data[: len(data) // 2])
            raise
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)
