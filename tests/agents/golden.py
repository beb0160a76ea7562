"""One update of each agent in NumPy and float64: losses as the papers write them, gradients by central differences.

Nothing here comes from `nearopt`. A state is a dictionary of arrays by name, an update returns a new one. Papers:
SAC (Haarnoja et al. 2018b, arXiv 1812.05905), discrete SAC (Christodoulou 2019, arXiv 1910.07207), soft Q-learning
(Haarnoja et al. 2017, arXiv 1702.08165), path consistency (Nachum et al. 2017, arXiv 1702.08892), Adam (Kingma and Ba
2015, arXiv 1412.6980, algorithm 1).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

STEP = 1e-6  # of central differences


@dataclass
class How:
    """What an update does; priors are functions of observations (and unit actions) that return log-probabilities."""

    gamma: float = 0.9
    tau: float = 0.1
    rates: tuple[float, float, float] = (0.02, 0.02, 0.02)  # of the critic, the actor, the temperature
    tuned: bool = True
    target_entropy: float = 0.0
    prior: Any = None
    activation: str = "relu"
    # SAC
    half: Any = None  # half the width of the action box
    middle: Any = None
    actor_q: str = "min"
    log_std: str = "clip"
    log_std_range: tuple[float, float] = (-20.0, 2.0)
    temperature_loss: str = "temperature"
    temperature_sample: str = "shared"
    entropy_units: str = "unit"
    update_order: str = "sequential"
    delay: int = 1
    # soft Q-learning
    double: bool = False
    n_steps: int = 1


# ---------------------------------------------------------------- networks and steps
def part(state, name):
    """The arrays whose names begin with `name`, without it."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def network(weights, x, activation="relu"):
    """A multi-layer perceptron; `weights` are named layers.0.weight, layers.0.bias, …"""
    depth = len(weights) // 2
    for i in range(depth):
        x = x @ weights[f"layers.{i}.weight"] + weights[f"layers.{i}.bias"]
        if i < depth - 1:
            x = np.maximum(x, 0) if activation == "relu" else np.tanh(x)
    return x


def twin(weights, i):
    return {name: value[i] for name, value in weights.items()}


def slope(loss, weights):
    """The gradient of loss(weights), one number at a time."""
    gradient = {name: np.zeros_like(value) for name, value in weights.items()}
    for name, value in weights.items():
        for index in np.ndindex(value.shape):
            kept = value[index]
            value[index] = kept + STEP
            above = loss(weights)
            value[index] = kept - STEP
            gradient[name][index] = (above - loss(weights)) / (2 * STEP)
            value[index] = kept
    return gradient


def adam(state, name, moments, gradient, rate):
    """Algorithm 1 of the paper, on the arrays called `name`, with their moments beside them."""
    state[f"{moments}.0.count"] = state[f"{moments}.0.count"] + 1
    t = state[f"{moments}.0.count"]
    for leaf, g in gradient.items():
        dot = f".{leaf}" if leaf else ""
        m, v = f"{moments}.0.mu{dot}", f"{moments}.0.nu{dot}"
        state[m] = 0.9 * state[m] + 0.1 * g
        state[v] = 0.999 * state[v] + 0.001 * g**2
        unbiased, square = state[m] / (1 - 0.9**t), state[v] / (1 - 0.999**t)
        state[f"{name}{dot}"] = state[f"{name}{dot}"] - rate * unbiased / (np.sqrt(square) + 1e-8)


def descend(state, name, loss, rate):
    """One step of Adam on a network."""
    weights = {leaf: value.copy() for leaf, value in part(state, name).items()}
    adam(state, name, f"{name}_moments", slope(loss, weights), rate)


def tune(state, how, entropy):
    """τ moves against E[entropy] − target (1812.05905, eq. 18); its logarithm is what Adam moves, so it stays positive.

    d/d(log τ) of τ (H − H*) is τ (H − H*), of log τ (H − H*) it is H − H*.
    """
    scale = 1.0 if how.temperature_loss == "log" else np.exp(state["log_temperature"])
    gradient = scale * (entropy.mean() - how.target_entropy)
    adam(state, "log_temperature", "temperature_moments", {"": gradient}, how.rates[2])


def track(state, how):
    """target ← (1 − tau) target + tau online."""
    for leaf, online in part(state, "critic").items():
        state[f"target.{leaf}"] = (1 - how.tau) * state[f"target.{leaf}"] + how.tau * online
    state["updates"] = state["updates"] + 1


def started(state):
    return {name: np.array(value, float) for name, value in state.items()}


# ---------------------------------------------------------------- SAC
def sac(state, batch, noise, how):
    """`noise`: "next" (batch, A), and one "actor" and one "fresh" (batch, A) for each step of the actor."""
    state = started(state)
    old = dict(state)
    next_action, next_cost = sampled(part(state, "actor"), batch["next_observation"], noise["next"], how)
    next_q = np.min(critics(part(state, "target"), batch["next_observation"], next_action, how), axis=0)
    # 1812.05905 eqs. 2, 3, 5: after a terminal step there is nothing, entropy neither
    soft = next_q - np.exp(state["log_temperature"]) * next_cost
    goes_on = np.where(batch["terminated"] > 0, 0.0, 1.0)
    y = batch["reward"] + how.gamma * goes_on * soft
    unit = (batch["action"] - how.middle) / how.half

    def critic_loss(weights):
        return sum(np.mean((q - y) ** 2) / 2 for q in critics(weights, batch["observation"], unit, how))

    descend(state, "critic", critic_loss, how.rates[0])
    climbed = part(state if how.update_order == "sequential" else old, "critic")
    if old["updates"] % how.delay == 0:
        for drawn, fresh in zip(noise["actor"], noise["fresh"], strict=True):
            actor_step(state, batch["observation"], climbed, drawn, fresh, how)
    track(state, how)
    return state


def actor_step(state, observation, climbed, drawn, fresh, how):
    temperature = np.exp(state["log_temperature"])
    pick = {"min": lambda q: np.minimum(q[0], q[1]), "mean": lambda q: (q[0] + q[1]) / 2, "first": lambda q: q[0]}

    def actor_loss(weights):  # eq. 9
        action, cost = sampled(weights, observation, drawn, how)
        return np.mean(temperature * cost - pick[how.actor_q](critics(climbed, observation, action, how)))

    cost = sampled(part(state, "actor"), observation, drawn, how)[1]
    descend(state, "actor", actor_loss, how.rates[1])
    if how.tuned:
        if how.temperature_sample == "fresh":
            cost = sampled(part(state, "actor"), observation, fresh, how)[1]
        tune(state, how, -cost)


def sampled(actor, observation, noise, how):
    """Actions in [−1, 1]^A, and log π/p of them (eq. 26 in appendix C), where d tanh(u)/du = 1/cosh² u."""
    mean, raw = np.split(network(actor, observation, how.activation), 2, axis=1)
    low, high = how.log_std_range
    if how.log_std == "clip":
        std = np.exp(np.clip(raw, low, high))
    elif how.log_std == "tanh":
        std = np.exp(low + (high - low) * (np.tanh(raw) + 1) / 2)
    else:
        std = np.log1p(np.exp(raw)) + 1e-5
    u = mean + std * noise
    log_normal = -((u - mean) ** 2) / (2 * std**2) - np.log(std) - np.log(2 * np.pi) / 2
    log_cosh = np.logaddexp(u, -u) - np.log(2)
    log_pi = (log_normal + 2 * log_cosh).sum(axis=1)
    action = np.tanh(u)
    if how.prior is not None:  # a ratio of densities is the same in all units
        return action, log_pi - how.prior(observation, action)
    return action, log_pi - (np.log(how.half).sum() if how.entropy_units == "box" else 0.0)


def critics(weights, observation, action, how):
    x = np.concatenate([observation, action], axis=1)
    return [network(twin(weights, i), x, how.activation)[:, 0] for i in (0, 1)]


# ---------------------------------------------------------------- discrete actions
def boltzmann(f, log_prior, temperature):
    """V = τ log Σ p exp(f/τ), π = p exp((f − V)/τ) and log π/p, row by row."""
    value, policy = np.zeros(len(f)), np.zeros(f.shape)
    for i in range(len(f)):
        top = max(f[i])
        weights = [np.exp(lp + (q - top) / temperature) for q, lp in zip(f[i], log_prior[i], strict=True)]
        value[i] = top + temperature * np.log(sum(weights))
        policy[i] = np.array(weights) / sum(weights)
    return value, policy, (f - value[:, None]) / temperature


def soft_dqn(state, batch, how):
    """`batch["later"]` holds observation, action, reward and on of steps 2 … n of windows, if n > 1."""
    state = started(state)
    temperature = np.exp(state["log_temperature"])
    target, online = part(state, "target"), part(state, "critic")
    rows = range(len(batch["reward"]))
    y = np.zeros(len(rows))
    for i in rows:
        y[i], m = batch["reward"][i], 1
        for j in range(how.n_steps - 1):  # 1702.08892 eq. 11: r − τ log π/p, discounted
            if not batch["later"]["on"][i, j]:
                break
            seen, action = batch["later"]["observation"][i, j][None], batch["later"]["action"][i, j]
            q = network(online if how.double else target, seen, how.activation)
            ratio = boltzmann(q, how.prior(seen), temperature)[2]
            y[i] += how.gamma**m * (batch["later"]["reward"][i, j] - temperature * ratio[0, action])
            m += 1
        if batch["terminated"][i]:
            continue
        seen = batch["next_observation"][i][None]
        q = network(target, seen, how.activation)
        value = boltzmann(q, how.prior(seen), temperature)[0][0]
        if how.double:  # the online policy, worth what the target network says
            _, policy, ratio = boltzmann(network(online, seen, how.activation), how.prior(seen), temperature)
            value = sum(p * (q - temperature * r) for p, q, r in zip(policy[0], q[0], ratio[0], strict=True))
        y[i] += how.gamma**m * value

    def critic_loss(weights):
        q = network(weights, batch["observation"], how.activation)
        return np.mean((q[rows, batch["action"]] - y) ** 2) / 2

    descend(state, "critic", critic_loss, how.rates[0])
    if how.tuned:
        q = network(part(state, "critic"), batch["observation"], how.activation)
        _, policy, ratio = boltzmann(q, how.prior(batch["observation"]), temperature)
        tune(state, how, -(policy * ratio).sum(axis=1))
    track(state, how)
    return state


def discrete_sac(state, batch, how):
    state = started(state)
    temperature = np.exp(state["log_temperature"])
    seen, following = batch["observation"], batch["next_observation"]

    def policy(weights, observation):
        logits = network(weights, observation, how.activation)
        return boltzmann(logits, how.prior(observation), 1.0)[1:]

    def least(weights, observation):
        return np.minimum(*[network(twin(weights, i), observation, how.activation) for i in (0, 1)])

    # 1910.07207 eqs. 10 and 12: V = π·(min Q − τ log π), an exact expectation
    pi, ratio = policy(part(state, "actor"), following)
    value = (pi * (least(part(state, "target"), following) - temperature * ratio)).sum(axis=1)
    y = batch["reward"] + np.where(batch["terminated"] > 0, 0.0, how.gamma * value)

    def critic_loss(weights):
        q = [network(twin(weights, i), seen, how.activation)[range(len(y)), batch["action"]] for i in (0, 1)]
        return np.mean((q[0] - y) ** 2) / 2 + np.mean((q[1] - y) ** 2) / 2

    descend(state, "critic", critic_loss, how.rates[0])
    q = least(part(state, "critic"), seen)

    def actor_loss(weights):  # summed over actions, averaged over states
        pi, ratio = policy(weights, seen)
        return (pi * (temperature * ratio - q)).sum() / len(y)

    pi, ratio = policy(part(state, "actor"), seen)
    descend(state, "actor", actor_loss, how.rates[1])
    if how.tuned:
        tune(state, how, -(pi * ratio).sum(axis=1))
    track(state, how)
    return state
