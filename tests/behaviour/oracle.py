"""Likelihood of recorded actions, slow and obvious: design §1 in extended precision, sharing no code with nearopt.

Finite horizons walk the tree of everything that can still happen: a history is the tuple of states so far, and two
histories share nothing. The infinite horizon sweeps the equation until it stands still. At κ = 1 `enumerated` needs no
value at all: it adds up trajectories.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

import nearopt as no

INF = np.inf
real = np.longdouble
KINDS = ("state", "choice", "branch", "timed choice", "timed branch")  # (S,) (S,A) (S,A,S) (T,S,A) (T,S,A,S)
STANDSTILL = 1e-18


@dataclass(frozen=True, eq=False)
class Agent:
    """A world and the dials of whoever acts in it. A state without available actions is terminal."""

    transition: np.ndarray  # (S, A, S)
    available: np.ndarray  # (S, A)
    reward: np.ndarray
    kind: str  # the axes of `reward`, one of KINDS
    log_prior: np.ndarray  # (S, A); 0 everywhere is the flat prior
    discount: float = 1.0
    temperature: float = 1.0
    optimism: float = 0.0

    def actions(self, s):
        return np.flatnonzero(self.available[s]).tolist()

    def branches(self, t, s, a):
        """[(probability, next state, reward), ...] at decision t."""
        index = {
            "state": (s,),
            "choice": (s, a),
            "branch": (s, a),
            "timed choice": (t, s, a),
            "timed branch": (t, s, a),
        }
        reward = self.reward[index[self.kind]]
        return [
            (real(p), s2, real(reward[s2] if "branch" in self.kind else reward))
            for s2, p in enumerate(self.transition[s, a].tolist())
            if p > 0
        ]


# ---------------------------------------------------------------- the equation
def dials(agent):
    return real(agent.discount), real(agent.temperature), real(agent.optimism)


def choice_value(agent, outcomes):
    """Q of a choice, from [(probability, reward, V of the next state), ...]."""
    gamma, tau, kappa = dials(agent)
    if kappa == 0:
        return sum(p * (r + gamma * v) for p, r, v in outcomes)
    terms = [p * np.exp(kappa * r / tau) * (gamma * np.exp(kappa * v / tau) + 1 - gamma) for p, r, v in outcomes]
    with np.errstate(divide="ignore"):
        return tau / kappa * np.log(sum(terms))


def logits(agent, s, q):
    """log p(a|s) + Q/τ of the available actions; the prior alone where all hope is lost."""
    prior = np.array([real(agent.log_prior[s, a]) for a in q])
    value = np.array(list(q.values())) / real(agent.temperature)
    return prior + value if np.isfinite(prior + value).any() else prior


def log_sum(x):
    top = max(x)
    return top if top == -INF else top + np.log(sum(np.exp(x - top)))


# ---------------------------------------------------------------- finite horizon: the tree of histories
def choices_after(agent, horizon, history):
    """{action: Q} after a history of states, (s_0, ..., s_t)."""
    t, s = len(history) - 1, history[-1]
    found = {}
    for a in agent.actions(s):
        outcomes = [(p, r, value_after(agent, horizon, (*history, s2))) for p, s2, r in agent.branches(t, s, a)]
        found[a] = choice_value(agent, outcomes)
    return found


def value_after(agent, horizon, history):
    t, s = len(history) - 1, history[-1]
    if t == horizon or not agent.actions(s):
        return real(0)
    q = choices_after(agent, horizon, history)
    if all(x == -INF or agent.log_prior[s, a] == -INF for a, x in q.items()):
        return -real(INF)
    return real(agent.temperature) * log_sum(logits(agent, s, q))


# ---------------------------------------------------------------- infinite horizon: sweep until it stands still
@lru_cache(maxsize=64)
def stationary(agent):
    """{state: {action: Q}} of V = BV."""
    gamma, tau, kappa = dials(agent)
    p = agent.transition.astype(real)
    reward = agent.reward.astype(real)
    r = {"state": lambda: reward[:, None, None], "choice": lambda: reward[:, :, None], "branch": lambda: reward}
    r = np.where(p > 0, np.broadcast_to(r[agent.kind](), p.shape), 0)
    prior = np.where(agent.available, agent.log_prior, -INF).astype(real)
    alive = agent.available.any(1)
    v = np.zeros(len(p), real)
    for _ in range(50_000):
        if kappa == 0:
            q = (p * (r + gamma * v)).sum(2)
        else:
            inside = (p * np.exp(kappa * r / tau) * (gamma * np.exp(kappa * v / tau) + 1 - gamma)).sum(2)
            with np.errstate(divide="ignore"):
                q = tau / kappa * np.log(np.where(agent.available, inside, 1))
        x = np.where(alive[:, None], prior + q / tau, 0)
        top = x.max(1)
        new = np.where(alive, tau * (top + np.log(np.exp(x - top[:, None]).sum(1))), 0)
        assert np.isfinite(new).all(), "no finite value"
        change = np.abs(new - v).max()
        v = new
        if change <= STANDSTILL * max(1, np.abs(v).max()):
            return {s: {a: q[s, a] for a in agent.actions(s)} for s in range(len(p))}
    raise AssertionError("the sweeps do not stand still")


# ---------------------------------------------------------------- policy and likelihood
@lru_cache(maxsize=4096)
def log_policy(agent, horizon, t, s):
    """{action: log π_t(a|s)}; horizon None is the stationary one."""
    if not agent.actions(s):
        return {}
    q = stationary(agent)[s] if horizon is None else choices_after(agent, horizon, (None,) * t + (s,))
    x = logits(agent, s, q)
    return dict(zip(q, x - log_sum(x), strict=True))


def log_likelihood(agent, horizon, states, actions):
    """(n,) log-probability of the recorded actions of state (n, L+1) and action (n, L), where −1 is not recorded."""
    sums = []
    for state, action in zip(np.asarray(states).tolist(), np.asarray(actions).tolist(), strict=True):
        recorded = [t for t, (s, a) in enumerate(zip(state, action, strict=False)) if s != -1 and a != -1]
        own = max(recorded, default=-1) + 1 if horizon == "episode" else horizon
        sums.append(sum((log_policy(agent, own, t, state[t]).get(action[t], -INF) for t in recorded), real(0)))
    return np.array(sums)


def derivative(function, x, direction, step=1e-3):
    """d/dε function(x + ε·direction) for dictionaries of arrays, by central differences of fourth order.

    Entries of direction 0 stay as they are, so they may be infinite.
    """
    at = lambda e: function({k: np.where(direction[k] == 0, x[k], x[k] + e * direction[k]) for k in x})
    h = real(step)
    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


def enumerated(agent, horizon):
    """{(t, s): {a: log π_t(a|s)}} at κ = 1: every trajectory from every state, weighed by p · exp(Σ r/τ), counted."""
    gamma, tau, _ = dials(agent)
    mass = defaultdict(lambda: defaultdict(real))

    def count(decisions, weight):
        for t, s, a in decisions:
            mass[t, s][a] += weight

    def extend(decisions, s, weight):
        t = len(decisions)
        if t == horizon or not agent.actions(s):
            count(decisions, weight)
            return
        for a in agent.actions(s):
            for p, s2, r in agent.branches(t, s, a):
                w = weight * np.exp(real(agent.log_prior[s, a]) + r / tau) * p
                longer = (*decisions, (t, s, a))
                count(longer, w * (1 - gamma))  # the coin ends it here
                extend(longer, s2, w * gamma)

    for s in range(len(agent.transition)):
        extend((), s, real(1))
    with np.errstate(divide="ignore"):
        return {k: {a: np.log(w / sum(m.values())) for a, w in m.items()} for k, m in mass.items() if sum(m.values())}


# ---------------------------------------------------------------- random problems
@dataclass(frozen=True, eq=False)
class Case:
    """An agent, what it was seen doing, and how `log_likelihood` is asked about it."""

    agent: Agent
    horizon: Any
    states: np.ndarray
    actions: np.ndarray
    own_reward: bool  # the reward is the model's own, not an argument
    own_discount: bool
    flat: bool  # the prior is flat

    def mdp(self):
        agent = self.agent
        reward, discount = (np.full(agent.available.shape, 7.0), 0.123)  # decoys
        return no.MDP.from_arrays(
            np.where(agent.available[..., None], agent.transition, 0),
            agent.reward if self.own_reward else reward,
            discount=agent.discount if self.own_discount else discount,
            terminal=~agent.available.any(1),
            available=agent.available,
        )

    def trajectories(self):
        return no.Trajectories(self.states, self.actions)  # may have gaps

    def arguments(self):
        agent = self.agent
        given = dict(temperature=agent.temperature, optimism=agent.optimism)
        given |= {} if self.own_reward else {"reward": agent.reward}
        given |= {} if self.own_discount else {"discount": agent.discount}
        return given | ({} if self.flat else {"log_prior": agent.log_prior})

    def exact(self, **changes):
        return log_likelihood(replace(self.agent, **changes), self.horizon, self.states, self.actions)


def random_rows(rng, num_states, num_actions, terminal, leak, branches):
    """Sparse p(s'|s,a) and which actions are available; every choice ends with probability `leak` at least."""
    transition = np.zeros((num_states, num_actions, num_states))
    available = rng.random((num_states, num_actions)) < 0.75
    available[np.arange(num_states), rng.integers(num_actions, size=num_states)] = True
    available[terminal] = False
    for s, a in np.argwhere(available):
        targets = rng.choice(num_states, int(rng.integers(1, branches + 1)), replace=False)
        p = np.maximum(rng.dirichlet(np.ones(len(targets))), 0.02)
        transition[s, a, targets] = (1 - leak) * p / p.sum()
        if leak:
            transition[s, a, rng.choice(np.flatnonzero(terminal))] += leak
    return transition, available


def random_prior(rng, available, name):
    """Weights (S, A), 0 where not available: flat, uniform, or arbitrary with zeros."""
    if name == "flat":
        return available.astype(float)
    weights = np.where(available, 1.0 if name == "uniform" else rng.exponential(size=available.shape) + 0.05, 0.0)
    if name == "array":
        spare = available & (weights < weights.max(1, keepdims=True)) & (rng.random(available.shape) < 0.25)
        weights[spare] = 0
    return weights / np.maximum(weights.sum(1, keepdims=True), 1e-300)


def forbid(rng, reward, kind, weights, everywhere):
    """Some rewards of −inf; unless `everywhere`, each state keeps a choice that is free of them, and so keeps hope."""
    if kind == "state":
        return reward
    choice = (rng.random(weights.shape) < 0.2) & (weights > 0)
    if not everywhere:
        choice[np.arange(len(weights)), np.argmax(weights > 0, axis=1)] = False
    mask = choice[..., None] & (rng.random((*choice.shape, len(weights))) < 0.6) if "branch" in kind else choice
    return np.where(mask, -INF, reward)


def random_agent(rng, size, kind, length, stationary, optimism, discount, prior):
    """An agent with a finite stationary value, or for `length` decisions."""
    num_states, num_actions = size
    ending = stationary and discount == 1
    terminal = np.zeros(num_states, bool)
    terminal[rng.permutation(num_states)[: int(rng.integers(ending, max(num_states - 1, 1 + ending)))]] = True
    leak = 0.3 if ending else 0.0
    branches = min(num_states, 2 if num_states * num_actions * length > 24 and not stationary else 3)
    transition, available = random_rows(rng, num_states, num_actions, terminal, leak, branches)
    weights = random_prior(rng, available, prior)
    temperature = float(rng.uniform(0.4, 2.5))
    shape = {"state": (), "choice": (num_actions,), "branch": (num_actions, num_states)}[kind.removeprefix("timed ")]
    reward = rng.normal(size=((length,) if "timed" in kind else ()) + (num_states, *shape))
    if stationary and optimism != 0:  # γ · exp(κ r/τ) · (Σ prior)^κ at most 0.9: the value is finite
        room = temperature * np.log(0.9 / (discount * (1 - leak))) / optimism
        room -= temperature * np.log(weights.sum(1).max()) if optimism > 0 else 0
        reward += room - (reward.max() if optimism > 0 else reward.min())
    if rng.random() < 0.3 and not (stationary and optimism < 0):
        reward = forbid(rng, reward, kind, weights, everywhere=not stationary)
    with np.errstate(divide="ignore"):
        log_prior = np.log(weights)
    return Agent(transition, available, reward, kind, log_prior, discount, temperature, optimism)


def walk(rng, agent, length):
    """A random walk of up to `length` decisions through what is possible; short where it ends in a terminal state."""
    p = agent.transition / np.maximum(agent.transition.sum(2, keepdims=True), 1e-300)
    s = int(rng.choice(np.flatnonzero(agent.available.any(1))))
    states, actions = [s], []
    while len(actions) < length and agent.actions(s):
        actions.append(int(rng.choice(agent.actions(s))))
        s = int(rng.choice(len(p), p=p[s, actions[-1]]))
        states.append(s)
    return states, actions


def record(rng, agent, horizon, length):
    """Four rows of 1 to `length` decisions of positive probability, from the second of which one is missing.

    So that cases of one shape share compiled code, rows are as long in every case, and for ever no row repeats itself.
    """
    lengths = [length, length, (length + 1) // 2, 1]
    states, actions = np.full((4, length + 1), -1), np.full((4, length), -1)
    for i, wanted in enumerate(lengths):
        for _ in range(50):
            s, a = walk(rng, agent, wanted)
            fits = len(a) == wanted and (horizon is not None or len({*zip(s, a, strict=False)}) == wanted)
            if fits and log_likelihood(agent, horizon, [s], [a])[0] > -INF:
                break
        else:
            return None
        states[i, : len(s)], actions[i, : len(a)] = s, a
    if length > 2:
        gap = int(rng.integers(1, length - 1))
        states[1, gap] = actions[1, gap] = -1
    return states, actions


def random_case(seed, size, kind, horizon, length, optimism, discount, prior="flat", own=(False, False)):
    """The first of a sequence of random cases in which there are trajectories of full length."""
    for attempt in range(100):
        rng = np.random.default_rng([*seed, attempt])
        agent = random_agent(rng, size, kind, length, horizon is None, optimism, discount, prior)
        recorded = record(rng, agent, horizon, length)
        if recorded is not None:
            return Case(agent, horizon, *recorded, *own, prior == "flat")
    raise AssertionError("no trajectory of full length found")
