"""The slow and obvious answers: plain Python loops that follow design §1 line by line and share no code with nearopt.

A world is {state: {action: [(probability, next state, reward), ...]}}; a state without actions is terminal.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

INF = math.inf


def exp(x):
    return 0.0 if x == -INF else INF if x == INF else math.exp(x)


def log(x):
    return -INF if x == 0 else INF if x == INF else math.log(x)


@dataclass(eq=False)
class Oracle:
    world: dict
    initial: dict
    discount: float
    horizon: int
    temperature: float
    optimism: float
    prior: dict  # prior[t][s][a]
    final_value: dict

    def __post_init__(self):
        self.q = cache(self.q)
        self.value = cache(self.value)

    # ---------------------------------------------------------------- the equation
    def q(self, t, s, a):
        gamma, tau, kappa = self.discount, self.temperature, self.optimism
        branches = self.world[s][a]
        if kappa == 0:
            return math.fsum(p * (r + (gamma * self.value(t + 1, s2) if gamma else 0.0)) for p, s2, r in branches)
        terms = [
            p * exp(kappa * r / tau) * ((gamma * exp(kappa * self.value(t + 1, s2) / tau) if gamma else 0) + 1 - gamma)
            for p, s2, r in branches
        ]
        return tau / kappa * log(math.fsum(terms) if INF not in terms else INF)

    def value(self, t, s):
        if not self.world[s]:
            return 0.0
        if t == self.horizon:
            return self.final_value[s]
        return self.temperature * log(
            math.fsum(self.prior[t][s][a] * exp(self.q(t, s, a) / self.temperature) for a in self.world[s])
        )

    def policy(self, t, s, a):
        v = self.value(t, s)
        if v == -INF:  # nothing to choose by: the prior, normalised
            return self.prior[t][s][a] / math.fsum(self.prior[t][s].values())
        return self.prior[t][s][a] * exp((self.q(t, s, a) - v) / self.temperature)

    # ---------------------------------------------------------------- the tilted world
    def tilted(self, t, s, a):
        """[(weight, next state)] ∝ p exp(κ (r + V)/τ), summing to one, and the probability of going on."""
        gamma, tau, kappa = self.discount, self.temperature, self.optimism
        branches = self.world[s][a]
        if gamma == 0 or kappa == 0 or self.q(t, s, a) == -INF:
            return [(p, s2) for p, s2, _ in branches], gamma
        go_on = [p * exp(kappa * (r + self.value(t + 1, s2)) / tau) for p, s2, r in branches]
        everything = [
            p * exp(kappa * r / tau) * (gamma * exp(kappa * self.value(t + 1, s2) / tau) + 1 - gamma)
            for p, s2, r in branches
        ]
        total = math.fsum(go_on)
        weights = [(w / total if total else p, s2) for w, (p, s2, _) in zip(go_on, branches, strict=True)]
        return weights, 1.0 if gamma == 1 else gamma * total / math.fsum(everything)

    def transition(self, t, s, a):
        out = defaultdict(float)
        for w, s2 in self.tilted(t, s, a)[0]:
            out[s2] += w
        return out

    def log_partition(self):
        tau, kappa = self.temperature, self.optimism
        if kappa == 0:
            return math.fsum(p * self.value(0, s) for s, p in self.initial.items() if p) / tau
        return log(math.fsum(p * exp(kappa * self.value(0, s) / tau) for s, p in self.initial.items() if p)) / kappa

    def first(self):
        if self.optimism == 0:
            return dict(self.initial)
        scale = self.optimism / self.temperature
        weights = {s: p * exp(scale * self.value(0, s)) if p else 0.0 for s, p in self.initial.items()}
        total = math.fsum(weights.values())
        return {s: w / total for s, w in weights.items()}

    def trajectories(self):
        """Every trajectory of the tilted process, [(states, actions, probability, ended)]; terminal states end it."""
        found = []

        def extend(t, states, actions, probability):
            s = states[-1]
            if t == self.horizon or not self.world[s]:
                found.append((states, actions, probability, False))
                return
            for a in self.world[s]:
                p_a = probability * self.policy(t, s, a)
                if p_a == 0:
                    continue
                going_on = self.tilted(t, s, a)[1]
                if going_on < 1:
                    found.append((states, (*actions, a), p_a * (1 - going_on), True))
                for s2, w in self.transition(t, s, a).items():
                    if w * going_on > 0:
                        extend(t + 1, (*states, s2), (*actions, a), p_a * going_on * w)

        for s, p in self.first().items():
            if p > 0:
                extend(0, (s,), (), p)
        return found

    def marginals(self, num_states, num_actions):
        """state_probs and state_action_probs by adding up every trajectory; terminal mass stays."""
        state = np.zeros((self.horizon + 1, num_states))
        action = np.zeros((self.horizon, num_states, num_actions))
        for states, actions, p, ended in self.trajectories():
            for t, s in enumerate(states):
                state[t, s] += p
            for t, a in enumerate(actions):
                action[t, states[t], a] += p
            if not ended and not self.world[states[-1]]:
                state[len(states) :, states[-1]] += p
        return state, action

    # ---------------------------------------------------------------- κ = 1 by summing over trajectories, without V
    def evidence(self, stop):
        """{state: Σ of p(trajectory) exp(Σ r/τ)} over trajectories of `stop` steps, and the mass that ended before."""
        alive, ended = defaultdict(float), 0.0

        def extend(t, s, weight):
            nonlocal ended
            if t == stop or not self.world[s]:
                alive[s] += weight
                return
            for a, branches in self.world[s].items():
                for p, s2, r in branches:
                    w = weight * self.prior[t][s][a] * p * exp(r / self.temperature)
                    if w:
                        ended += w * (1 - self.discount)
                        extend(t + 1, s2, w * self.discount)

        for s, p in self.initial.items():
            if p:
                extend(0, s, p)
        return alive, ended


# ---------------------------------------------------------------- the ledger by enumerating trajectories
def tree(o, t, s):
    """(Σ of prior · p · exp(Σ r/τ) over all that can follow, {action: (the same given it, [outcome, ...])}).

    An outcome is a branch with its coin: (true probability, the sum given it, reward, next state, subtree). Every
    trajectory is a path of its own: nothing is shared between two ways to a state, and there is no value function.
    """
    if t == o.horizon or not o.world[s]:
        return 1.0, {}
    choices = {}
    for a, branches in o.world[s].items():
        outcomes = []
        for p, s2, r in branches:
            for coin, goes_on in ((o.discount, True), (1 - o.discount, False)):
                below = tree(o, t + 1, s2) if goes_on and coin else (1.0, {})
                if coin:
                    outcomes.append((p * coin, exp(r / o.temperature) * below[0], r, s2, below))
        choices[a] = math.fsum(p * w for p, w, *_ in outcomes), outcomes
    return math.fsum(o.prior[t][s][a] * w for a, (w, _) in choices.items()), choices


@dataclass(eq=False)
class LedgerOracle:
    """Every entry of the ledger as a sum over the trajectories of `o`'s world; q acts by policy(t, s, a)."""

    o: Oracle
    policy: Callable

    def __post_init__(self):
        self.kl_initial = self.kl_policy = self.kl_dynamics = self.elbo = 0.0
        self.believed_return = self.actual_return = self.variational_return = 0.0
        first = {s: (p, tree(self.o, 0, s)) for s, p in self.o.initial.items() if p}
        evidence = math.fsum(p * node[0] for p, node in first.values())
        self.log_evidence = log(evidence)
        for s, (p, node) in first.items() if evidence else ():
            self.kl_initial += times(p, log(evidence) - log(node[0]))
            self.walk(0, s, node, p, p, p * node[0] / evidence, 0.0)
        self.optimal_return = math.fsum(p * self.best(0, s) for s, p in self.o.initial.items() if p)

    def walk(self, t, s, node, honest, actual, believed, score):
        """Below one prefix: its probability under q, under the exact policy in the true world, and under the posterior;
        `score` is Σ log prior − log q's policy + r/τ along it."""
        weight, choices = node
        if not choices:
            self.elbo += times(honest, score)
            return
        prior = self.o.prior[t][s]
        for a, (weight_a, outcomes) in choices.items():
            rho = self.policy(t, s, a)
            pi = prior[a] * weight_a / weight if weight else prior[a] / math.fsum(prior.values())
            self.kl_policy += times(honest * rho, log(rho) - log(pi))
            for p, w, r, s2, below in outcomes:
                posterior = p * w / weight_a if weight_a else p
                self.kl_dynamics += times(honest * rho * p, log(p) - log(posterior))
                self.variational_return += times(honest * rho * p, r)
                self.actual_return += times(actual * pi * p, r)
                self.believed_return += times(believed * pi * posterior, r)
                masses = honest * rho * p, actual * pi * p, believed * pi * posterior
                self.walk(t + 1, s2, below, *masses, score + log(prior[a]) - log(rho) + r / self.o.temperature)

    def best(self, t, s):
        """The largest expected sum of rewards."""
        if t == self.o.horizon or not self.o.world[s]:
            return 0.0
        on = lambda s2: times(self.o.discount, self.best(t + 1, s2))
        return max(math.fsum(p * (r + on(s2)) for p, s2, r in branches) for branches in self.o.world[s].values())


def times(mass, x):
    return mass * x if mass else 0.0


def random_world(rng, num_states, num_actions, max_branches, terminals, forbid, branch_rewards):
    """A random world with zero probabilities, unavailable actions, terminal states and perhaps rewards of −inf."""
    terminal = set(rng.permutation(num_states)[:terminals].tolist())
    world = {}
    for s in range(num_states):
        world[s] = {}
        if s in terminal:
            continue
        offered = [a for a in range(num_actions) if rng.random() < 0.7] or [int(rng.integers(num_actions))]
        for a in offered:
            k = int(rng.integers(1, max_branches + 1))
            targets = sorted(rng.choice(num_states, size=min(k, num_states), replace=False).tolist())
            p = rng.dirichlet(np.full(len(targets), 0.7))
            p = np.maximum(p, 1e-3) / np.maximum(p, 1e-3).sum()
            common = float(rng.normal())
            rewards = [float(rng.normal()) if branch_rewards else common for _ in targets]
            if forbid and rng.random() < 0.15:
                rewards = [-INF if branch_rewards and rng.random() < 0.5 else r for r in rewards]
            world[s][a] = [(float(x), s2, r) for x, s2, r in zip(p, targets, rewards, strict=True)]
    return world


def to_arrays(world, num_states, num_actions):
    """The world as keyword arguments of `MDP.from_arrays`."""
    transition = np.zeros((num_states, num_actions, num_states))
    reward = np.zeros((num_states, num_actions, num_states))
    for s, choices in world.items():
        for a, branches in choices.items():
            for p, s2, r in branches:
                transition[s, a, s2] += p
                reward[s, a, s2] = r
    return dict(transition=transition, reward=reward, terminal=np.array([not world[s] for s in range(num_states)]))
