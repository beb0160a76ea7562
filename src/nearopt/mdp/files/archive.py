"""Tar archives, compressed or not, that may come from a stranger: unpacked in memory, never beyond a limit."""

import bz2
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nearopt.mdp.errors import CorruptFileError, FormatError, OversizeError, TruncatedFileError
from nearopt.mdp.files.names import shorten

FRESH = "get a fresh copy of the file"
SKIPPED = (b"5", b"x", b"g")  # folders, and extra attributes as times
Files = dict[str, memoryview]


def pack(files: Mapping[str, bytes]) -> bytes:
    """A gzipped tar of the files, in their order; the same files give the same bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)  # time, owner and group 0
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    raw = out.getvalue()
    compressor = zlib.compressobj(wbits=31)  # a gzip header without time or name
    small = compressor.compress(raw) + compressor.flush()
    return small if len(raw) <= size_limit(small) else raw  # never write what `unpack` would take for a bomb


def size_limit(data: bytes) -> int:
    return 100 * len(data) + 2**20


def unpack(data: bytes) -> Files:
    """The regular files of the archive, as views of one buffer.

    Raises `OversizeError` (more than 100 times its size), `TruncatedFileError`, `FormatError`, `CorruptFileError`.
    """
    limit = size_limit(data)
    try:
        raw, complete = decompress(data, limit + 1)
    except Exception as error:  # zlib.error, LZMAError, OSError: each library has its own
        raise CorruptFileError(f"the compression is broken ({shorten(str(error))})", FRESH) from None
    if len(raw) > limit:
        problem = f"the archive of {len(data):,} bytes unpacks to more than {limit:,}"
        raise OversizeError(problem, "unpack and check it by hand, then save it as plain tar")
    if not complete:
        raise TruncatedFileError("the archive ends early", FRESH)
    if not raw:
        raise TruncatedFileError("the file is empty", FRESH)
    view, files = memoryview(raw), {}
    for name, start, size in members(raw):
        if name in files:
            raise CorruptFileError(f"{shorten(name)!r} is there twice", FRESH)
        files[name] = view[start : start + size]
    return files


def members(raw: bytes) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and size of each plain file. Not by tarfile: negative sizes make some versions of it hang."""
    place = 0
    while place < len(raw):
        head = raw[place : place + 512]
        if head.count(0) == len(head):
            return
        if head[257:262] != b"ustar":
            kind = CorruptFileError if place else FormatError
            raise kind(f"no file of a tar archive begins at byte {place}", "save the model with mdp.save('name.umb')")
        size, checksum = octal(head[124:136]), octal(head[148:156])
        if size is None or checksum != sum(head) - sum(head[148:156]) + 8 * ord(" "):
            raise CorruptFileError(f"the header at byte {place} of the archive is broken", FRESH)
        start, name = place + 512, text(head[:100])
        if head[257:263] == b"ustar\0" and (prefix := text(head[345:500])):
            name = f"{prefix}/{name}"
        if start + size > len(raw):
            raise TruncatedFileError(f"{shorten(name)!r} ends early", FRESH)
        if head[156:157] in (b"0", b"\0"):
            yield name.removeprefix("./").lstrip("/"), start, size
        elif head[156:157] not in SKIPPED:  # links and holes claim more than there is
            raise CorruptFileError(f"{shorten(name)!r} is not a plain file", FRESH)
        place = start + -(-size // 512) * 512
    raise TruncatedFileError("the archive ends early", FRESH)


def octal(field: bytes) -> int | None:
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and all(b"0"[0] <= d <= b"7"[0] for d in digits) else None


def text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")


def decompress(data: bytes, limit: int) -> tuple[bytes, bool]:
    """At most `limit` bytes, and whether the stream came to its end."""
    known: dict[bytes, Callable[[], Any]] = {
        b"\x1f\x8b": lambda: zlib.decompressobj(wbits=31),
        b"\xfd7zXZ\x00": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=2**27),  # dictionaries are claimed too
        b"BZh": bz2.BZ2Decompressor,
    }
    for magic, make in known.items():
        if data.startswith(magic):
            stream = make()
            raw = stream.decompress(data, limit)
            return raw, stream.eof
    return data, True
