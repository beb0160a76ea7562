"""`.umb`: the unified Markov binary format of PRISM, Storm and others (https://pmc-tools.github.io/umb).

A tar archive, usually compressed: `index.json` tells the type and the counts, one binary file per mapping holds the
rest. The index goes through `umbi`, the format's own library; the archive is unpacked and the mappings are read here,
because `umbi` unpacks whatever the archive claims, allocates what the index claims, and takes 2 µs for a number.
Nothing is believed that is not backed by bytes.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from nearopt.mdp.errors import CorruptFileError, MissingExtraError, UnsupportedModelError, VersionError
from nearopt.mdp.files.archive import FRESH, Files, pack, unpack
from nearopt.mdp.files.exchange import TERMINAL, Explicit, choose_reward, from_explicit, to_explicit
from nearopt.mdp.files.names import check_offsets, parse_json, shorten
from nearopt.mdp.model import MDP

NOTE = "nearopt "
FORMAT_VERSION = 1
DEFAULT_SIZE = {"bool": 1, "int": 64, "uint": 64, "double": 64, "rational": 128, "string": 64}


# ------------------------------------------------------------ writing
def encode(mdp: MDP) -> bytes:
    """The bytes of a `.umb` file. Raises `LossySaveError` and `UnsaveableNameError`."""
    model = to_explicit(mdp, ".umb", branch_rewards=True, one_word=False)
    per_choice = mdp.choice_reward is not None
    reward = model.branch_reward[model.branch_offset[:-1]] if per_choice else model.branch_reward
    entity = "choices" if per_choice else "branches"
    files = {
        "index.json": json.dumps(make_index(model, entity), indent=1).encode(),
        "state-to-choices.bin": model.choice_offset.astype("<u8").tobytes(),
        "state-is-initial.bin": pack_bits(model.first),
        "choice-to-branches.bin": model.branch_offset.astype("<u8").tobytes(),
        "branch-to-target.bin": model.next_state.astype("<u8").tobytes(),
        "branch-to-probability.bin": model.probability.astype("<f8").tobytes(),
        "actions/choices/values.bin": model.label.astype("<u4").tobytes(),
        "annotations/aps/terminal/states/values.bin": pack_bits(model.ends),
        f"annotations/rewards/reward/{entity}/values.bin": reward.astype("<f8").tobytes(),
    }
    if model.label_names is not None:
        words = [word.encode() for word in model.label_names]
        ends = np.cumsum([0, *map(len, words)])
        files["actions/choices/string-mapping.bin"] = ends.astype("<u8").tobytes()
        files["actions/choices/strings.bin"] = b"".join(words)
    return pack(files)


def make_index(model: Explicit, reward_entity: str) -> dict[str, Any]:
    import nearopt

    index = index_module()
    sized, kinds, boolean = sized_types()
    double = sized(kinds.DOUBLE, 64)
    document = index.UmbIndex(
        format_version=FORMAT_VERSION,
        format_revision=0,
        model_data=index.ModelData(comment=NOTE + (model.note or "")),
        file_data=index.FileData(tool="nearopt", tool_version=nearopt.__version__),  # no date: same model, same bytes
        transition_system=index.TransitionSystem(
            time="discrete",
            num_players=1,
            num_states=len(model.ends),
            num_initial_states=int(model.first.sum()),
            num_choices=len(model.label),
            num_choice_actions=model.num_labels,
            num_branches=len(model.probability),
            branch_probability_type=double,
        ),
        annotations={
            "aps": {"terminal": index.AnnotationDescription(alias="terminal", applies_to=["states"], type=boolean)},
            "rewards": {"reward": index.AnnotationDescription(alias="reward", applies_to=[reward_entity], type=double)},
        },
    )
    return document.to_json()


def pack_bits(flags: np.ndarray) -> bytes:
    packed = np.packbits(flags, bitorder="little").tobytes()
    return packed + bytes(-len(packed) % 8)


# ------------------------------------------------------------ reading
def decode(data: bytes, reward_model: str | None = None) -> MDP:
    """The model in the bytes of a `.umb` file; `reward_model` chooses among several rewards.

    Raises: `OversizeError` (it would unpack to over 100 times its size), `TruncatedFileError`, `FormatError`,
    `CorruptFileError`, `VersionError`, `UnsupportedModelError` (neither MDP nor DTMC, or with intervals),
    `AmbiguousRewardError` and `ArgumentError` (which reward?), and the errors of the `MDP` constructor.
    """
    files = unpack(data)
    index = read_index(files)
    system = index.transition_system
    check_kind(system)
    num_states, num_choices, num_branches = system.num_states, system.num_choices, system.num_branches
    sizes = {"states": num_states, "choices": num_choices, "branches": num_branches}
    # The probabilities vouch for the number of branches, every other count follows from what is mapped to them.
    probability = numbers(files, "branch-to-probability.bin", system.branch_probability_type, num_branches)
    if probability is None:
        raise CorruptFileError("branch-to-probability.bin is missing", FRESH)
    branch_offset = mapping(files, "choice-to-branches.bin", num_choices, num_branches)
    choice_offset = mapping(files, "state-to-choices.bin", num_states, num_choices)
    if system.num_players == 0 and (np.diff(choice_offset) > 1).any():
        raise CorruptFileError("a state of a DTMC has two choices", "set #players to 1")
    first = bits(files, "state-is-initial.bin", num_states)
    if int(first.sum()) != system.num_initial_states:
        raise CorruptFileError(
            f"the index announces {system.num_initial_states} initial states, not {first.sum()}", FRESH
        )
    target = vector(files, "branch-to-target.bin", "<u8", num_branches)
    if target is not None and (target >= num_states).any():
        raise CorruptFileError(f"branch {int(np.argmax(target >= num_states))} leads to no state", FRESH)
    label, words = read_actions(files, system)
    annotations = index.annotations or {}
    note = (index.model_data.comment or "") if index.model_data is not None else ""
    branch_choice = np.repeat(np.arange(num_choices), np.diff(branch_offset))
    places = {
        "states": np.repeat(np.arange(num_states), np.diff(choice_offset))[branch_choice],
        "choices": branch_choice,
        "branches": slice(None),
    }
    return from_explicit(
        Explicit(
            choice_offset=choice_offset,
            branch_offset=branch_offset,
            probability=probability,
            next_state=np.zeros(num_branches, np.int64) if target is None else target.astype(np.int64),
            branch_reward=read_reward(files, annotations.get("rewards") or {}, reward_model, sizes, places),
            label=label,
            label_names=words,
            num_labels=max(1, system.num_choice_actions) if system.num_players else 1,
            declared=True,
            ends=read_ends(files, annotations.get("aps") or {}, num_states),
            first=first,
            note=note.removeprefix(NOTE) if note.startswith(NOTE + "{") else None,
        )
    )


def read_index(files: Files) -> Any:
    if "index.json" not in files:
        raise CorruptFileError("the archive has no index.json", FRESH)
    document = parse_json(bytes(files["index.json"]), "index.json")
    version = document.get("format-version") if isinstance(document, dict) else None
    if type(version) is int and version > FORMAT_VERSION:
        raise VersionError(
            f"the file has format version {version}, known is {FORMAT_VERSION}", "update nearopt and umbi"
        )
    index = index_module()
    try:
        fill_sizes(document)
        return index.UmbIndex.from_json(document)
    except Exception as error:  # marshmallow's ValidationError, and ValueError, TypeError, AttributeError from umbi
        raise CorruptFileError(f"index.json is not as UMB wants it ({shorten(str(error), 200)})", FRESH) from None


def fill_sizes(value: Any) -> None:
    """A type may leave out its size; umbi 0.2.14 insists on one."""
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        fill_sizes(part)
    if isinstance(value, dict) and isinstance(value.get("type"), str) and "size" not in value:
        kind = value["type"]
        size = DEFAULT_SIZE.get(kind.removesuffix("-interval"))
        if size is not None:
            value["size"] = size * (2 if kind.endswith("-interval") else 1)


def check_kind(system: Any) -> None:
    found = None
    if system.time != "discrete":
        found = f"runs in {system.time} time"
    elif system.num_players > 1:
        found = f"has {system.num_players} players"
    elif system.num_observations:
        found = "has observations"
    elif system.branch_probability_type is None:
        found = "has no probabilities"
    if found:
        raise UnsupportedModelError(f"the model {found}", "give an MDP or a DTMC")


def read_actions(files: Files, system: Any) -> tuple[np.ndarray, list[str] | None]:
    """The label of each choice, and the words that the labels stand for."""
    num_choices, num_labels = system.num_choices, system.num_choice_actions
    if num_labels == 0 or system.num_players == 0:
        return np.zeros(num_choices, np.int64), None
    label = vector(files, "actions/choices/values.bin", "<u4", num_choices)
    label = np.zeros(num_choices, np.int64) if label is None else label.astype(np.int64)
    if (label >= num_labels).any():
        choice = int(np.argmax(label >= num_labels))
        raise CorruptFileError(f"choice {choice} has action {label[choice]}, the index announces {num_labels}", FRESH)
    if "actions/choices/string-mapping.bin" not in files:
        return label, None
    text = bytes(files.get("actions/choices/strings.bin", b""))
    ends = mapping(files, "actions/choices/string-mapping.bin", num_labels, len(text)).tolist()
    try:
        return label, [text[i:j].decode() for i, j in zip(ends[:-1], ends[1:], strict=True)]
    except UnicodeDecodeError as error:
        raise CorruptFileError(f"an action label is not UTF-8 ({error})", FRESH) from None


def read_ends(files: Files, labels: Mapping[str, Any], num_states: int) -> np.ndarray:
    ends = np.zeros(num_states, bool)
    for name, label in labels.items():
        if (label.alias or name) in TERMINAL and (label.applies_to or []) == ["states"]:
            ends |= bits(files, f"annotations/aps/{name}/states/values.bin", num_states)
    return ends


def read_reward(
    files: Files, rewards: Mapping[str, Any], wanted: str | None, sizes: dict[str, int], places: dict[str, Any]
) -> np.ndarray:
    """The reward of each branch: what its state, its choice and it itself are given."""
    total: np.ndarray | None = None
    place = choose_reward([reward.alias or name for name, reward in rewards.items()], wanted)
    if place is None:
        return np.zeros(sizes["branches"])
    name = list(rewards)[place]
    reward = rewards[name]
    if reward.probability_type is not None:
        raise UnsupportedModelError(f"the reward {shorten(name)!r} is random", "give one number per state or choice")
    for entity in dict.fromkeys(reward.applies_to or []):
        values = numbers(files, f"annotations/rewards/{name}/{entity}/values.bin", reward.type, sizes[entity])
        if values is not None:
            total = values[places[entity]] if total is None else total + values[places[entity]]
    return np.zeros(sizes["branches"]) if total is None else total


# ------------------------------------------------------------ binary files
def vector(files: Files, name: str, dtype: str, count: int) -> np.ndarray | None:
    """`count` numbers, None where the file is absent; its size must be exactly theirs."""
    if name not in files:
        return None
    if len(files[name]) != count * np.dtype(dtype).itemsize:
        raise CorruptFileError(f"{shorten(name)} has {len(files[name])} bytes, not those of {count} entries", FRESH)
    return np.frombuffer(files[name], dtype)


def mapping(files: Files, name: str, count: int, length: int) -> np.ndarray:
    """Offsets of `count` intervals that cover 0 .. length; where the file is absent, one each."""
    offset = vector(files, name, "<u8", count + 1)
    if offset is None:
        if count != length:
            raise CorruptFileError(f"{name} is missing, and {count} does not match {length} one to one", FRESH)
        return np.arange(count + 1)
    check_offsets(offset, length, name)  # and so all fit into int64
    return offset.astype(np.int64)


def bits(files: Files, name: str, count: int) -> np.ndarray:
    """`count` flags, padded to whole bytes or to 8 bytes; none is set where the file is absent."""
    if name not in files:
        return np.zeros(count, bool)
    if len(files[name]) not in ((count + 7) // 8, (count + 63) // 64 * 8):
        raise CorruptFileError(f"{shorten(name)} has {len(files[name])} bytes, not those of {count} flags", FRESH)
    return np.unpackbits(np.frombuffer(files[name], np.uint8), count=count, bitorder="little").astype(bool)


def numbers(files: Files, name: str, kind: Any, count: int) -> np.ndarray | None:
    """`count` numbers of the type that the index tells, as float64; rationals are rounded once."""
    word = getattr(kind.type, "value", str(kind.type))
    if word == "double":
        return vector(files, name, "<f8", count)
    if word in ("int", "uint") and kind.size_bits == 64:
        whole = vector(files, name, "<i8" if word == "int" else "<u8", count)
        return None if whole is None else whole.astype(float)
    if word.endswith("-interval"):
        raise UnsupportedModelError(f"{shorten(name)} holds intervals", "give one number each")
    if word != "rational" or kind.size_bits % 16:
        raise UnsupportedModelError(f"{shorten(name)} holds {word} numbers of {kind.size_bits} bits", "use doubles")
    content = vector(files, name, f"V{kind.size_bits // 8}", count)
    if content is None:
        return None
    data, half = bytes(files[name]), kind.size_bits // 16
    read = int.from_bytes
    try:
        pairs = (
            read(data[i : i + half], "little", signed=True) / read(data[i + half : i + 2 * half], "little")
            for i in range(0, len(data), 2 * half)
        )
        return np.fromiter(pairs, float, count)
    except (ZeroDivisionError, OverflowError) as error:
        raise CorruptFileError(f"{shorten(name)} holds no fraction ({error})", FRESH) from None


# ------------------------------------------------------------ umbi
def index_module() -> Any:
    """`umbi.umb.index`, imported on first use; its complaints about bad files become errors here, not log lines."""
    try:
        import umbi.umb.index
    except ImportError as error:
        raise MissingExtraError(f".umb files need umbi ({error})", "pip install umbi") from None
    logger = logging.getLogger("umbi")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return umbi.umb.index


def sized_types() -> tuple[Any, Any, Any]:
    from umbi.binary import BOOL1, SizedType
    from umbi.datatypes import NumericPrimitiveType

    return SizedType, NumericPrimitiveType, BOOL1
