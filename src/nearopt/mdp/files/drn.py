"""`.drn`: Storm's explicit text format.

    @type: MDP                          header: sections in any order, then @model
    state 0 [0.5] init                  a state, its reward under each reward model, its labels
        action left [1, 0]              a choice, its label, its rewards
            1 : 1/3                     a transition: next state, probability

The grammar is that of Storm 2.0 (`DirectEncodingParser.cpp`). r(s, a) is the state's reward plus the choice's.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from nearopt.mdp.errors import CorruptFileError, NearoptError, ParseError, TruncatedFileError, UnsupportedModelError
from nearopt.mdp.files.exchange import NO_LABEL, TERMINAL, Explicit, choose_reward, from_explicit, to_explicit
from nearopt.mdp.files.names import shorten
from nearopt.mdp.model import MDP

NOTE = "// nearopt "
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?inf", re.ASCII)
FRACTION = re.compile(r"([+-]?\d+)\s*/\s*(\d+)", re.ASCII)
LABEL = re.compile(r'"([^"]+)"|([^\s"]+)')
VALUE_SECTIONS = ("@parameters", "@reward_models", "@nr_states", "@nr_choices")  # their value is the line below
MAY_BE_EMPTY = ("@parameters", "@reward_models")


# ------------------------------------------------------------ writing
def encode(mdp: MDP) -> bytes:
    """The bytes of a `.drn` file. Raises `LossySaveError` and `UnsaveableNameError`."""
    model = to_explicit(mdp, ".drn", branch_rewards=False, one_word=True)
    words = model.label_names or [str(a) for a in range(int(model.label.max()) + 1)]
    head = [
        "// Written by nearopt",
        NOTE + (model.note or ""),
        "@type: MDP\n@value_type: double\n@parameters\n\n@reward_models\nreward",
        f"@nr_states\n{len(model.ends)}\n@nr_choices\n{len(model.label)}\n@model",
    ]
    marks = zip(model.first.tolist(), model.ends.tolist(), strict=True)
    labels = [" init" * first + " terminal" * ends for first, ends in marks]
    reward = model.branch_reward[model.branch_offset[:-1]].tolist()
    branches = [f"\t\t{s} : {p!r}" for s, p in zip(model.next_state.tolist(), model.probability.tolist(), strict=True)]
    label, branch_offset, choice_offset = (
        model.label.tolist(),
        model.branch_offset.tolist(),
        model.choice_offset.tolist(),
    )
    lines = head
    for s, text in enumerate(labels):
        lines.append(f"state {s}{text}")
        for c in range(choice_offset[s], choice_offset[s + 1]):
            lines.append(f"\taction {words[label[c]]} [{reward[c]!r}]")
            lines.extend(branches[branch_offset[c] : branch_offset[c + 1]])
    return ("\n".join(lines) + "\n").encode()


# ------------------------------------------------------------ reading
def decode(data: bytes, reward_model: str | None = None) -> MDP:
    """The model in the bytes of a `.drn` file; `reward_model` chooses among several rewards.

    Raises: `ParseError` with the line and its text, `TruncatedFileError`, `CorruptFileError`, `UnsupportedModelError`
    (neither MDP nor DTMC, or with parameters or intervals), `AmbiguousRewardError` and `ArgumentError` (which reward?),
    and the errors of the `MDP` constructor.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ParseError(f"line {line} is not UTF-8 text", "unpack the file, or save it as plain text") from None
    lines = enumerate(text.split("\n"), 1)
    header = Header()
    feed(lines, header.add)
    header.check()
    body = Body(header, choose_reward(header.reward_models, reward_model))
    feed(lines, body.add)
    return from_explicit(body.finish())


def feed(lines: Iterator[tuple[int, str]], add: Callable[[str], bool]) -> None:
    """Hands stripped lines to `add` until it has enough; an error gets the line's number and text."""
    at = (0, "")
    try:
        for at in lines:
            if add(at[1].strip()):
                return
    except NearoptError as error:
        number, line = at
        raise type(error)(f"line {number}, {shorten(line.strip())!r}: {error.problem}", error.mend) from None


@dataclass
class Header:
    model_type: str = ""
    num_states: int = -1
    num_choices: int | None = None
    reward_models: list[str] = field(default_factory=list)
    placeholders: dict[str, float] = field(default_factory=dict)
    note: str | None = None
    section: str = ""  # the section whose value the next line gives
    seen: set[str] = field(default_factory=set)

    def add(self, line: str) -> bool:
        """Takes one line of the header; True at its end."""
        if self.section in VALUE_SECTIONS and not (line.startswith("@") and self.section in MAY_BE_EMPTY):
            self.set_value(self.section, line)
            self.section = ""
        elif line.startswith("//"):
            if line.startswith(NOTE + "{"):
                self.note = line.removeprefix(NOTE)
        elif line.startswith("@"):
            self.open_section(*line.partition(":")[::2])
        elif self.section == "@placeholders" and line.startswith("$"):
            name, _, text = line.partition(":")
            self.placeholders[name.strip()] = number(text.strip(), self.placeholders)
        elif line:
            raise ParseError("this is no line of a header", "start it with a known @section, or remove it")
        return self.section == "@model"

    def open_section(self, name: str, value: str) -> None:
        value = value.strip()
        if name in self.seen:
            raise ParseError(f"{name} is declared twice", "remove one of the two")
        self.seen.add(name)
        self.section = name
        if name == "@type":
            self.model_type = value
            if value.upper() not in ("MDP", "DTMC"):
                raise UnsupportedModelError(f"the model is of type {shorten(value)}", "give an MDP or a DTMC")
        elif name == "@value_type":
            if value not in ("double", "rational"):
                raise UnsupportedModelError(f"the values are of type {shorten(value)}", "use double or rational")
        elif name not in (*VALUE_SECTIONS, "@placeholders", "@model"):
            raise ParseError("there is no such section", "remove it")

    def set_value(self, section: str, line: str) -> None:
        if section == "@parameters" and line:
            raise UnsupportedModelError(f"the model has the parameters {shorten(line)}", "give them values first")
        if section == "@reward_models":
            self.reward_models = line.split()
        elif section == "@nr_states":
            self.num_states = whole(line, "number of states")
        elif section == "@nr_choices":
            self.num_choices = whole(line, "number of choices")

    def check(self) -> None:
        if self.section != "@model":
            raise TruncatedFileError("the file ends before its @model line", "get a fresh copy of the file")
        for name, missing in (("@type", not self.model_type), ("@nr_states", self.num_states < 0)):
            if missing:
                raise ParseError(f"the header has no {name}", f"add {name} before @model")


class Body:
    """The lines below @model, gathered into lists."""

    def __init__(self, header: Header, reward: int | None):
        self.header, self.reward = header, reward
        self.chain = header.model_type.upper() == "DTMC"
        self.choice_offset: list[int] = []
        self.branch_offset: list[int] = []
        self.label: list[int] = []
        self.choice_reward: list[float] = []
        self.next_state: list[int] = []
        self.probability: list[float] = []
        self.labels: dict[str, int] = {}
        self.first: list[int] = []
        self.ends: list[int] = []
        self.state_reward = 0.0
        self.implicit = False  # the current state has transitions without an action line
        self.numbers: dict[str, float] = {}  # most numbers occur many times
        self.rewards: dict[str, float] = {}

    def add(self, line: str) -> bool:
        """Takes one line; there is never enough."""
        if line.startswith("action "):
            self.add_action(*split(line[7:]))
        elif line.startswith("state "):
            self.add_state(*split(line[6:]))
        elif line and not line.startswith("//"):
            self.add_branch(line)
        return False

    def add_state(self, word: str, rest: str) -> None:
        self.close_state()
        state = len(self.choice_offset)
        if whole(word, "state number") != state:
            raise ParseError(f"state {word} stands where state {state} belongs", "number the states 0, 1, 2, ...")
        if state >= self.header.num_states:
            raise ParseError(f"the header announces {self.header.num_states} states only", "correct @nr_states")
        self.choice_offset.append(len(self.label))
        self.implicit = False
        self.state_reward, rest = self.take_reward(rest)
        if rest:
            labels = {quoted or plain for quoted, plain in LABEL.findall(rest)}
            if "init" in labels:
                self.first.append(state)
            if not labels.isdisjoint(TERMINAL):
                self.ends.append(state)

    def add_action(self, word: str, rest: str) -> None:
        self.close_choice()
        if not self.choice_offset:
            raise ParseError("an action stands before the first state", "start with 'state 0'")
        if self.implicit:
            raise ParseError("an action follows transitions that have none", "give every choice its action line")
        if self.chain and len(self.label) > self.choice_offset[-1]:
            raise ParseError("a DTMC state has a second action", "declare the model as @type: MDP")
        reward, rest = self.take_reward(rest)
        if rest:
            raise ParseError(f"{shorten(rest)!r} follows the action", "write 'action NAME [REWARDS]'")
        self.open_choice(NO_LABEL if self.chain else word, reward)

    def add_branch(self, line: str) -> None:
        target, colon, value = line.partition(":")
        if not colon:
            raise ParseError("this is neither a state, an action nor a transition", "write 'NEXT_STATE : PROBABILITY'")
        if not self.choice_offset:
            raise ParseError("a transition stands before the first state", "start with 'state 0'")
        if len(self.label) == self.choice_offset[-1]:
            self.implicit = True
            self.open_choice(NO_LABEL, 0.0)
        next_state = whole(target.strip(), "next state")
        if next_state >= self.header.num_states:
            raise ParseError(f"there is no state {next_state}", f"lead to one of the {self.header.num_states} states")
        value = value.strip()
        if (probability := self.numbers.get(value)) is None:
            probability = self.numbers[value] = number(value, self.header.placeholders)
        self.next_state.append(next_state)
        self.probability.append(probability)

    def open_choice(self, word: str, reward: float) -> None:
        self.label.append(self.labels.setdefault(word, len(self.labels)))
        self.choice_reward.append(reward + self.state_reward if self.state_reward else reward)  # keeps -0.0 as it is
        self.branch_offset.append(len(self.next_state))

    def close_choice(self) -> None:
        if self.branch_offset and self.branch_offset[-1] == len(self.next_state):
            problem = f"the last action of state {len(self.choice_offset) - 1} leads nowhere"
            raise ParseError(problem, "give it a transition, or remove it")

    def close_state(self) -> None:
        self.close_choice()
        if self.choice_offset and self.choice_offset[-1] == len(self.label) and self.state_reward:
            problem = f"state {len(self.choice_offset) - 1} has the reward {self.state_reward:g} but no action"
            raise UnsupportedModelError(problem, "give it an action, or no reward")

    def take_reward(self, text: str) -> tuple[float, str]:
        """The reward in leading brackets, and what follows them."""
        if not text.startswith("["):
            return 0.0, text
        inside, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise ParseError("the bracket of the rewards does not close", "write '[REWARD]'")
        if (reward := self.rewards.get(inside)) is None:
            values = [number(word.strip(), self.header.placeholders) for word in inside.split(",")]
            known = max(1, len(self.header.reward_models))
            if len(values) > known:
                raise ParseError(f"{len(values)} rewards stand where {known} belong", "name each under @reward_models")
            place = self.reward or 0
            reward = self.rewards[inside] = values[place] if place < len(values) else 0.0
        return reward, rest.strip()

    def finish(self) -> Explicit:
        header, num_states = self.header, len(self.choice_offset)
        if num_states != header.num_states:
            problem = f"the header announces {header.num_states} states, the file has {num_states}"
            raise TruncatedFileError(problem, "get a fresh copy of the file, or correct @nr_states")
        if header.num_choices not in (None, 0, len(self.label)):
            problem = f"the header announces {header.num_choices} choices, the file has {len(self.label)}"
            raise CorruptFileError(problem, "correct @nr_choices")
        self.close_state()
        branch_offset = np.array([*self.branch_offset, len(self.next_state)], np.int64)
        marks = np.zeros((2, num_states), bool)
        marks[0, self.first] = marks[1, self.ends] = True
        return Explicit(
            choice_offset=np.array([*self.choice_offset, len(self.label)], np.int64),
            branch_offset=branch_offset,
            probability=np.array(self.probability, float),
            next_state=np.array(self.next_state, np.int64),
            branch_reward=np.repeat(np.array(self.choice_reward, float), np.diff(branch_offset)),
            label=np.array(self.label, np.int64),
            label_names=None if self.chain else list(self.labels),
            num_labels=max(1, len(self.labels)),
            declared=False,
            ends=marks[1],
            first=marks[0],
            note=header.note,
        )


def split(text: str) -> tuple[str, str]:
    """The first word, and the rest."""
    words = text.split(None, 1)
    return words[0], words[1] if len(words) == 2 else ""


def whole(text: str, what: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise ParseError(f"{shorten(text)!r} is no {what}", "write a whole number")
    return int(text)


def number(text: str, placeholders: dict[str, float]) -> float:
    """A decimal, a fraction or a $placeholder."""
    if NUMBER.fullmatch(text):
        return float(text)
    if (match := FRACTION.fullmatch(text)) and len(text) < 4000:
        try:
            return int(match[1]) / int(match[2])
        except (ZeroDivisionError, OverflowError):
            pass
    if text.startswith("$") and text in placeholders:
        return placeholders[text]
    if text.startswith(("[", "(")):
        raise UnsupportedModelError(f"{shorten(text)!r} is an interval", "give one number")
    raise ParseError(f"{shorten(text)!r} is no number", "write a decimal or a fraction")
