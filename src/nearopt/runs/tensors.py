"""Named arrays and facts as two files, `<name>.safetensors` and `<name>.json`: data only, loading runs no code.

The JSON describes the arrays, and holds checksums of each, of the safetensors file and of itself, so that no byte of
either can change unnoticed. The two are replaced as one: the new arrays are first written under a name of their own,
with their checksum in it; the new JSON, renamed over the old one, is the moment of change; then the arrays get their
final name, by `save` or, had it been killed, by the next `settle`. `load` looks in both places. One process at a time
may save in a folder.
"""

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nearopt.mdp.errors import FileAccessError, MissingFileError, NearoptError, VersionError
from nearopt.mdp.files.atomic import sync_folder, write_atomically
from nearopt.runs import manifest
from nearopt.runs.errors import DamagedFileError, UnsaveableError, cannot_save, damaged

FORMAT = 1
DTYPES = {"BOOL": "bool", "F16": "float16", "F32": "float32", "F64": "float64"}
DTYPES |= {f"{kind}{bits}": f"{name}{bits}" for kind, name in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)}


# ---------------------------------------------------------------- two files
def save(folder: Path, name: str, tensors: Mapping[str, np.ndarray], facts: dict[str, Any]) -> None:
    """Writes the pair, whole or not at all; the same input gives the same bytes.

    `tensors` are boolean, whole or floating-point arrays of any shape, NaN and inf allowed; `facts` whatever
    `manifest.plain` accepts. The folder is made where there is none.

    Raises: `UnsaveableError`; `CannotSaveError` (a full disk, missing rights): then the old pair is untouched.
    """
    arrays = {key: checked(key, array) for key, array in tensors.items()}
    data = encode(arrays)
    text = describe(arrays, data, manifest.plain({**facts}))
    pending = folder / f".{name}-{hashlib.sha256(data).hexdigest()}.safetensors"
    try:
        make_folder(folder)
        settle(folder, name)
        write_atomically(pending, data)
        write_atomically(folder / f"{name}.json", text)
    except (OSError, NearoptError) as error:
        with contextlib.suppress(OSError):
            pending.unlink(missing_ok=True)
        raise cannot_save(folder / name, error) from None
    with contextlib.suppress(OSError):  # saved it is by now: `load` finds the arrays under either name
        os.replace(pending, folder / f"{name}.safetensors")
    sync_folder(folder)


def make_folder(folder: Path) -> None:
    """With all that are above it, each of which will be there after a power loss."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def settle(folder: Path, name: str) -> None:
    """Finishes a `save` that was killed after its moment of change, and removes what one killed before it left."""
    try:
        wanted = read_manifest(folder, name)["file"]["sha256"]
    except (MissingFileError, DamagedFileError):  # not: that it cannot be read just now
        wanted = None
    for path in list(folder.iterdir()):
        if found := re.fullmatch(rf"\.{re.escape(name)}-([0-9a-f]{{64}})\.safetensors", path.name):
            if found[1] == wanted:
                os.replace(path, folder / f"{name}.safetensors")
            else:
                path.unlink()
        elif re.fullmatch(r"\.nearopt-[0-9a-f]+\.tmp", path.name):
            path.unlink()


def load(folder: Path, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the facts that `save` was given.

    Raises: `MissingFileError`, `FileAccessError` (missing rights), `DamagedFileError` (any byte of either changed),
    `VersionError` (a format of another nearopt).
    """
    document = read_manifest(folder, name)
    size, digest = document["file"]["bytes"], document["file"]["sha256"]
    path = folder / f".{name}-{digest}.safetensors"
    if not os.path.lexists(path):
        path = folder / f"{name}.safetensors"
    data = read_file(path, size)
    if hashlib.sha256(data).hexdigest() != digest:
        raise damaged(path, f"it is not the file that {name}.json describes")
    arrays = decode(data, path)
    if describe(arrays, data, document["facts"]) != manifest.dump(document):
        raise damaged(folder / f"{name}.json", f"it does not describe {name}.safetensors")
    return arrays, document["facts"]


def read_manifest(folder: Path, name: str) -> dict[str, Any]:
    """The JSON alone, checked by its own checksum: "facts", "file" (bytes, sha256), "tensors", "format"."""
    path = folder / f"{name}.json"
    document = manifest.parse(read_file(path), path)
    match document:
        case {"format": int(number), "file": {"bytes": int(), "sha256": str()}, "facts": dict()}:
            if number == FORMAT:
                return document
            raise VersionError(
                f"{path} has format {number}, and {FORMAT} is known here", "use the nearopt that wrote it"
            )
    raise damaged(path, "it does not describe arrays")


def describe(arrays: Mapping[str, np.ndarray], data: bytes, facts: dict[str, Any]) -> bytes:
    tensors = {
        key: {
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "sha256": hashlib.sha256(array.reshape(-1)).hexdigest(),
        }
        for key, array in arrays.items()
    }
    file = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return manifest.dump({"format": FORMAT, "facts": facts, "file": file, "tensors": tensors})


# ---------------------------------------------------------------- one file
def checked(key: str, array: Any) -> np.ndarray:
    """The array in row-major order and native byte order, as safetensors expects it."""
    array = np.asarray(array, order="C")
    if type(key) is not str or key == "__metadata__" or not key.isprintable():
        raise UnsaveableError(f"an array is called {key!r}", "give it a name of printable characters")
    if array.dtype.name not in DTYPES.values():
        raise UnsaveableError(f"the array {key!r} has type {array.dtype}", "use booleans, integers or floats")
    return np.asarray(array, dtype=array.dtype.newbyteorder("="))


def encode(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a safetensors file; without metadata, whose order would be random."""
    import safetensors.numpy

    return safetensors.numpy.save(dict(arrays))


def decode(data: bytes, path: Path) -> dict[str, np.ndarray]:
    """The arrays in the bytes of a safetensors file, sorted by name. Raises `DamagedFileError`."""
    import safetensors

    arrays = {}
    try:
        for key, spec in sorted(safetensors.deserialize(data), key=lambda item: item[0]):
            array = np.frombuffer(spec["data"], np.uint8 if spec["dtype"] == "BOOL" else DTYPES[spec["dtype"]])
            if spec["dtype"] == "BOOL":
                if array.max(initial=0) > 1:
                    raise ValueError("a boolean other than 0 and 1")
                array = array.view(bool)
            arrays[key] = array.reshape(spec["shape"])
    except Exception as error:  # SafetensorError, an unknown type, a shape that NumPy cannot hold
        raise damaged(path, f"safetensors refuses it ({str(error)[:80]!r})") from None
    return arrays


def read_file(path: Path, size: int | None = None, most: int = manifest.LIMIT) -> bytes:
    """The bytes of a regular file: exactly `size` of them, or at most `most`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)  # never waits for a pipe
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a path with a null byte
        raise MissingFileError(f"{path} does not exist", "check the path") from None
    except OSError as error:
        if path.is_symlink():
            raise damaged(path, "it is a symbolic link") from None
        raise FileAccessError(f"{path} cannot be read ({error.strerror})", "check its rights and its disk") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise damaged(path, "it is not a regular file")
        if size is None and status.st_size > most:
            raise damaged(path, f"it has {status.st_size:,} bytes, and at most {most:,} make sense")
        if size is not None and status.st_size != size:
            raise damaged(path, f"it has {status.st_size:,} bytes, not {size:,}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    except OSError as error:
        raise FileAccessError(f"{path} cannot be read ({error.strerror})", "check its rights and its disk") from None
    finally:
        os.close(descriptor)
