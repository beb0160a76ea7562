"""Answers of arbitrary numbers, and what else the tests of figures share."""

from types import SimpleNamespace

import numpy as np
from matplotlib.figure import Figure

MAZE = "#########\n#S...#..#\n#.##...G#\n#.......#\n#########"


def make_axes():
    return Figure(figsize=(4, 3)).subplots()


def fake(mdp, horizon=12, temperature=1.0, optimism=1.0, seed=0):
    """An answer of arbitrary numbers: figures read, they do not compute. Nothing is compiled for it."""
    rng = np.random.default_rng(seed)
    probs = rng.random((horizon + 1, mdp.num_states)) ** 3
    probs[0] = mdp.initial
    probs /= probs.sum(1, keepdims=True)
    value = -rng.random(probs.shape) * np.linspace(5, 0, horizon + 1)[:, None]
    value[-1] = np.where(mdp.terminal, 0.0, -np.inf)
    policy = rng.dirichlet(np.ones(mdp.num_actions), mdp.num_states) * mdp.available
    dials = dict(horizon=horizon, temperature=temperature, optimism=optimism, prior=None)
    with np.errstate(divide="ignore"):
        log_forward = np.log(probs)
    return SimpleNamespace(
        mdp=mdp, state_probs=probs, value=value, log_forward=log_forward, policy_at=lambda t: policy, **dials
    )
