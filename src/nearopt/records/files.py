"""CSV and Parquet files of recorded behaviour."""

import csv
import io
from collections.abc import Iterator
from operator import itemgetter
from os import PathLike
from pathlib import Path

import numpy as np

from nearopt.mdp.errors import CorruptFileError, EmptyRecordsError, MissingExtraError, ParseError
from nearopt.mdp.files import read
from nearopt.mdp.files.atomic import write_atomically
from nearopt.mdp.model import MDP
from nearopt.records.assembly import assemble
from nearopt.records.cells import Coder, Column
from nearopt.records.columns import to_columns
from nearopt.records.tables import Fault, Names, Table, frame_columns
from nearopt.records.trajectories import Trajectories

CHUNK = 512  # rows that are held as text at a time: few enough to stay in the cache


# ---------------------------------------------------------------- CSV
def read_csv(path: str | PathLike[str], names: Names, mdp: MDP | None, invalid: str) -> Trajectories:
    """See `Trajectories.from_csv`."""
    source = str(path)
    chunks = split(decode(read(Path(path)), source), source)
    first, _ = next(chunks, ([], []))
    if not first:
        raise EmptyRecordsError(f"{source} is empty", "give a header and at least one recorded step")
    header = [name.strip() for name in first[0]]
    place = {part: header.index(name) for part, name in names.check(header, source).items()}
    coder, codes = {part: Coder() for part in place}, {part: [np.zeros(0, np.int64)] for part in place}
    line, width, blank = [], [], [""] * len(header)
    for rows, lines in chunks:
        line += lines
        width += map(len, rows)
        rows = [row if len(row) == len(header) else blank for row in rows]
        for part, k in place.items():
            codes[part].append(coder[part].code(list(map(itemgetter(k), rows))))
    columns = {part: Column(list(coder[part].number), np.concatenate(codes[part])) for part in place}
    mend = "give every line one value per column"
    described = lambda row: (f"{width[row]} values, the header names {len(header)}", mend)
    ragged = Fault(np.array(width, np.int64) != len(header), ParseError, described)
    return assemble(Table(source, names, columns, np.array(line, np.int64), ragged), mdp, invalid)


def decode(data: bytes, source: str) -> str:
    """UTF-8 text, with or without a byte order mark."""
    try:
        text = data.decode("utf-8-sig")
        if (null := data.find(b"\0")) < 0:
            return text
    except UnicodeDecodeError as error:
        null = error.start
    line = data.count(b"\n", 0, null) + 1
    raise ParseError(f"{source}: line {line} is not UTF-8 text", "save the table as CSV in UTF-8")


def split(text: str, source: str) -> Iterator[tuple[list[list[str]], list[int]]]:
    """The header, then chunks of rows, each with the lines they begin in; blank lines are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    rows, lines, begin, most = [], [], 1, 1
    try:
        for row in reader:
            if row:
                rows.append(row)
                lines.append(begin)
                if len(rows) == most:
                    yield rows, lines
                    rows, lines, most = [], [], CHUNK
            begin = reader.line_num + 1
    except csv.Error as error:
        problem = f"{source}: line {begin} cannot be read ({error})"
        raise ParseError(problem, "close every quote, and write a quote inside a value twice") from None
    if rows:
        yield rows, lines


def write_csv(trajectories: Trajectories, path: str | PathLike[str]) -> None:
    """See `Trajectories.to_csv`."""
    columns = to_columns(trajectories)
    values = [column.tolist() for column in columns.values()]
    for k, column in enumerate(columns.values()):
        if column.dtype.kind == "f":  # 3.0 is written 3, and what was not recorded is left empty
            values[k] = ["" if x != x else int(x) for x in values[k]]
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*values, strict=True))
    write_atomically(path, out.getvalue().encode())


# ---------------------------------------------------------------- Parquet
def read_parquet(path: str | PathLike[str], names: Names, mdp: MDP | None, invalid: str) -> Trajectories:
    """See `Trajectories.from_parquet`."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        problem = "Parquet files need pyarrow, which is not installed"
        raise MissingExtraError(problem, 'pip install "nearopt[parquet]"') from None
    source = str(path)
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(read(Path(path))))
        wanted = names.check(file.schema_arrow.names, source)
        table = file.read(columns=sorted(set(wanted.values())))
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise CorruptFileError(f"{source} is no Parquet file that can be read ({reason})", "write it anew") from None
    return assemble(Table(source, names, frame_columns(table, names, source)), mdp, invalid)
