"""Tables with a row per step → trajectories, by the rules of `Trajectories.from_frame`."""

from typing import Any

import numpy as np

from nearopt.mdp.errors import (
    ArgumentError,
    EmptyRecordsError,
    LabelError,
    NotAModelError,
    RecordedNumberError,
    RecordedTimeError,
    TimeSpanError,
)
from nearopt.mdp.model import MDP
from nearopt.records.cells import INVALID, LARGEST, MISSING, Numbering, is_missing, read_label, read_time
from nearopt.records.labels import label_text
from nearopt.records.tables import Fault, Names, Table, frame_columns
from nearopt.records.trajectories import Trajectories

SPARE, SPARSE = 10**6, 50  # entries of the (n, L+1) arrays that are always granted, and that each row may cost


def read_frame(frame: Any, names: Names, mdp: MDP | None, invalid: str) -> Trajectories:
    """See `Trajectories.from_frame`."""
    return assemble(Table("the table", names, frame_columns(frame, names, "the table")), mdp, invalid)


def assemble(table: Table, mdp: MDP | None, invalid: str) -> Trajectories:
    """The trajectories of a table, by the rules of `Trajectories.from_frame`."""
    if invalid not in ("refuse", "drop"):
        raise ArgumentError(f"invalid is {invalid!r}", 'give "refuse" or "drop"')
    if mdp is not None and not isinstance(mdp, MDP):
        raise NotAModelError(f"mdp is a {type(mdp).__name__}", "give an MDP, whose names are to be looked up")
    if not len(table.columns["episode"]):
        raise EmptyRecordsError(f"{table.source} has no rows", "give at least one recorded step")
    read, faults = read_rows(table, mdp)
    bad = np.any([fault.rows for fault in faults], axis=0)
    if bad.any() and (invalid == "refuse" or bad.all()):
        raise table.refuse([fault for fault in faults if fault.rows.any()], int(bad.sum()))
    late = out_of_order(table, read, np.flatnonzero(~bad))
    if late.rows.any():
        faults, bad = [*faults, late], bad | late.rows
        if invalid == "refuse":
            raise table.refuse([late], int(bad.sum()))
    if bad.any():
        table.warn(faults, bad)
    return build(table, {part: values[~bad] for part, values in read.items()}, np.flatnonzero(~bad))


def read_rows(table: Table, mdp: MDP | None) -> tuple[dict[str, np.ndarray], list[Fault]]:
    """Part → (rows,) int64, and the rows in which a part cannot be read."""
    columns, names = table.columns, table.names
    faults = [table.ragged] if table.ragged else []
    read: dict[str, np.ndarray] = {}
    for part in ("subject", "episode"):
        if part in columns:
            read[part] = columns[part].read(read_label({}))
            missing = f"the {part} is missing", f"give every row its {getattr(names, part)!r}"
            faults.append(Fault(read[part] == MISSING, LabelError, lambda row, missing=missing: missing))
    read["time"] = columns["time"].read(read_time)

    def bad_time(row: int) -> tuple[str, str]:
        value = columns["time"][row]
        text = "the time is missing" if is_missing(value) else f"the time is {value!r}"
        return text, f"count decisions in {names.time!r}: whole numbers, 0, 1, 2, ..."

    faults.append(Fault(read["time"] == LARGEST, RecordedTimeError, bad_time))
    for part, known in (("state", mdp and mdp.state_names), ("action", mdp and mdp.action_names)):
        numbering = Numbering(known)
        read[part] = columns[part].read(numbering.reader())

        def bad_number(row: int, part: str = part, numbering: Numbering = numbering) -> tuple[str, str]:
            return numbering.fault(part, columns[part][row], mdp is not None)

        faults.append(Fault(read[part] == INVALID, RecordedNumberError, bad_number))
    if "subject" in read:
        read["episode"] = read["subject"] * (read["episode"].max() + 1) + read["episode"]
    return read, faults


def out_of_order(table: Table, read: dict[str, np.ndarray], rows: np.ndarray) -> Fault:
    """Those among `rows` whose time is not above all earlier ones of their episode."""
    rank = np.unique(read["time"][rows], return_inverse=True)[1]
    group = np.unique(read["episode"][rows], return_inverse=True)[1]
    order = np.argsort(group, kind="stable")
    key = (group * len(rows) + rank)[order]  # rises from group to group, so that the maximum so far is the group's
    late = np.flatnonzero(key[1:] <= np.maximum.accumulate(key)[:-1]) + 1
    mask = np.zeros(len(read["time"]), bool)
    mask[rows[order[late]]] = True

    def describe(row: int) -> tuple[str, str]:
        earlier = rows[(read["episode"][rows] == read["episode"][row]) & (rows < row)]
        before = int(earlier[np.argmax(read["time"][earlier])])
        now, then = read["time"][[row, before]].tolist()
        said = f"{now} again, as in" if now == then else f"{now}, after {then} in"
        alone = "" if table.names.subject else ", or say which column is the subject="
        mend = f"sort the rows by time, and give every episode a label of its own{alone}"
        return f"the time of {episode_words(table, row)} is {said} {table.where(before)}", mend

    return Fault(mask, RecordedTimeError, describe)


def episode_words(table: Table, row: int) -> str:
    parts = [f"{p} {str(table.columns[p][row]).strip()}" for p in ("subject", "episode") if p in table.columns]
    return ", ".join(parts)


def build(table: Table, read: dict[str, np.ndarray], rows: np.ndarray) -> Trajectories:
    """Fills the arrays: episodes in the order in which they come, the smallest time is decision 0."""
    _, first, group = np.unique(read["episode"], return_index=True, return_inverse=True)
    order = np.argsort(first)
    group = np.argsort(order)[group]
    start = read["time"].min()
    time = read["time"] - start
    n, length = len(first), int((time + (read["action"] != MISSING)).max())
    if n * (length + 1) > SPARE + SPARSE * len(rows):
        row = int(np.argmax(time))
        text = f"the time is {time[row] + start:,}, the first one {start:,}: {length:,} decisions of {n:,} episodes"
        mend = f"count the decisions of every episode in {table.names.time!r}, from the same number on"
        raise TimeSpanError(f"{table.source}: {table.where(rows[row])}: {text}, in {len(rows):,} rows", mend)

    def fill(values: np.ndarray, width: int) -> np.ndarray:
        out = np.full((n, width), MISSING, np.int64)
        inside = time < width
        out[group[inside], time[inside]] = values[inside]
        return out

    labelled = [part for part in ("subject", "episode") if part in table.columns]
    label = {part: np.array([label_text(table.columns[part][i]) for i in rows[first[order]]]) for part in labelled}
    return Trajectories(
        fill(read["state"], length + 1),
        fill(read["action"], length),
        line=None if table.line is None else fill(table.line[rows], length + 1),
        **label,
    )
