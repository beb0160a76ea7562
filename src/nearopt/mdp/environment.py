"""The model as a Gymnasium environment, registered as nearopt/MDP-v0 when this module is imported."""

import operator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from nearopt.mdp.errors import ActionRangeError, EpisodeOverError, StateRangeError
from nearopt.mdp.model import MDP

ID = "nearopt/MDP-v0"


def make_environment(mdp: MDP, one_hot: bool) -> gymnasium.Env:
    """See `MDP.to_gymnasium` and `MDPEnv`: without wrappers, and with a spec, so that `env.spec.make()` works."""
    return gymnasium.make(ID, mdp=mdp, one_hot=one_hot)


class MDPEnv(gymnasium.Env):
    """Draws the transitions of an `MDP`. `terminated` exactly in terminal states; no time limit of its own.

    An episode that starts in a terminal state (only where `mdp.initial` says so) ends at its first step, which pays 0
    and stays: its return is the value of that state. There, `info["action_mask"]` is all zeros and
    `info["action_taken"]` is -1. A reward of -inf is passed on as it is.

    `reset(options={"state": s})` starts in state s instead of drawing one.

    Raises: `EpisodeOverError` for a step after the end or before the first reset, `ActionRangeError`,
    `StateRangeError`.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}

    def __init__(self, mdp: MDP, one_hot: bool = False, render_mode: str | None = None):
        self.mdp, self.one_hot, self.render_mode = mdp, one_hot, render_mode
        self.action_space = spaces.Discrete(mdp.num_actions)
        if one_hot:
            self.observation_space = spaces.Box(0.0, 1.0, (mdp.num_states,), np.float32)
        else:
            self.observation_space = spaces.Discrete(mdp.num_states)
        self.first = np.flatnonzero(mdp.initial)
        self.first_cumulated = np.cumsum(mdp.initial[self.first])
        self.state: int | None = None  # None before the first reset
        self.over = False
        self.last: tuple[int, int, float] | None = None  # state, action and reward that led here, for render

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if options and options.get("state") is not None:
            self.state = self.check(options["state"], self.mdp.num_states, StateRangeError, "state")
        else:
            self.state = int(self.first[draw(self.first_cumulated, self.np_random)])
        self.over, self.last = False, None
        return self.observe(self.state), {"action_mask": self.mask(self.state)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        action = self.check(action, self.mdp.num_actions, ActionRangeError, "action")
        if self.state is None or self.over:
            when = "before the first reset" if self.state is None else f"after the end in state {self.state}"
            raise EpisodeOverError(f"step({action}) {when}", "call reset first")
        mdp, state, reward = self.mdp, self.state, 0.0
        available = mdp.choice_action[mdp.choice_offset[state] : mdp.choice_offset[state + 1]]
        if len(available) == 0:
            action = -1
        else:
            i = int(np.searchsorted(available, action))
            if i == len(available) or available[i] != action:
                i = int(self.np_random.integers(len(available)))
            action, choice = int(available[i]), mdp.choice_offset[state] + i
            begin, end = mdp.branch_offset[choice : choice + 2]
            branch = begin + draw(np.cumsum(mdp.probability[begin:end]), self.np_random)
            state, reward = int(mdp.next_state[branch]), float(mdp.branch_reward[branch])
        self.last = (self.state, action, reward)
        self.state, self.over = state, bool(mdp.terminal[state])
        return self.observe(state), reward, self.over, False, {"action_mask": self.mask(state), "action_taken": action}

    def render(self) -> str | None:
        """In mode "ansi", a line on where the agent is and what led there."""
        if self.render_mode != "ansi":
            return None
        here = "not begun" if self.state is None else self.mdp.describe(self.state) + (", the end" if self.over else "")
        if self.last is None:
            return f"{here}\n"
        state, action, reward = self.last
        return f"{self.mdp.describe(state, None if action < 0 else action)}: reward {reward:g} → {here}\n"

    def observe(self, state: int) -> Any:
        if not self.one_hot:
            return state
        out = np.zeros(self.mdp.num_states, np.float32)
        out[state] = 1.0
        return out

    def mask(self, state: int) -> np.ndarray:
        """(A,) int8, the form that `Discrete.sample(mask)` takes."""
        out = np.zeros(self.mdp.num_actions, np.int8)
        out[self.mdp.choice_action[self.mdp.choice_offset[state] : self.mdp.choice_offset[state + 1]]] = 1
        return out

    @staticmethod
    def check(value: Any, count: int, error: type[Exception], kind: str) -> int:
        try:
            number = operator.index(value)
        except TypeError:
            number = -1
        if not 0 <= number < count:
            raise error(f"{kind} {value!r} is not among 0 .. {count - 1}", f"give a whole number below {count}")
        return number


def draw(cumulated: np.ndarray, rng: np.random.Generator) -> int:
    """An index with probability proportional to the steps of `cumulated`; a step of zero is never drawn."""
    i = np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right")
    return min(int(i), len(cumulated) - 1)  # the product may round up to the last value itself


if ID not in gymnasium.registry:
    gymnasium.register(ID, f"{__name__}:MDPEnv", order_enforce=False, disable_env_checker=True)
