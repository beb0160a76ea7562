"""One small world for many tests: whatever is asked of it shares compiled code."""

from dataclasses import replace

import jax
import numpy as np

import nearopt as no
from nearopt.behaviour.decisions import steps
from nearopt.behaviour.simulate import simulate
from nearopt.behaviour.uncertainty import Fit
from tests.behaviour.oracle import Agent, log_policy

S, A, F, T = 4, 2, 3, 3
DISCOUNT = 0.8
STEP = 1e-3  # of finite differences, in extended precision and of fourth order


def world(transition=None, discount=DISCOUNT):
    """A model, features (S, A, F), and an agent whose reward is linear in them."""
    rng = np.random.default_rng(0)
    dense, features = rng.dirichlet(np.ones(S), (S, A)), rng.normal(size=(S, A, F))
    transition = dense if transition is None else transition
    reward = features @ [1.0, -0.5, 0.3]
    agent = Agent(transition, np.ones((S, A), bool), reward, "choice", np.zeros((S, A)), discount)
    return no.MDP.from_arrays(transition, reward, discount=discount), features, agent


def log_table(agent, horizon=None):
    """log π as (S, A) or (T, S, A), by the oracle."""
    rows = lambda t: [[log_policy(agent, horizon, t, s)[a] for a in range(A)] for s in range(S)]
    return np.array(rows(0) if horizon is None else [rows(t) for t in range(horizon)], np.longdouble)


def behaviour(mdp, agent, n, horizon=None, seed=0):
    """n trajectories of T decisions, of four subjects."""
    policy = np.exp(log_table(agent, horizon)).astype(float)
    walks = simulate(mdp, policy, np.arange(n) % mdp.num_states, np.full(n, T), seed)
    return no.Trajectories(walks.state, walks.action, subject=np.arange(n) % 4)


def at(model, trajectories, theta):
    """The model as if θ had been fitted: nothing is optimised."""
    theta = np.asarray(theta, float)
    with jax.enable_x64(True):
        family = model.family(steps(trajectories, model.horizon))
        decisions = model.collect(trajectories, family)
        model.fit_ = Fit(family, theta, decisions, model.penalties(), np.ones(len(theta), bool))
    for name in ("stderr_", "identifiability_", "num_parameters_"):
        model.__dict__.pop(name, None)
    return model


def linear(agent, features, **changes):
    """θ → the agent whose reward is linear in the features."""
    return lambda theta: replace(agent, reward=features @ np.asarray(theta, np.longdouble), **changes)


# ---------------------------------------------------------------- finite differences
def slope(function, x):
    """∂ function / ∂ x, last axis."""
    columns = []
    for e in STEP * np.eye(len(x)):
        columns.append((8 * (function(x + e) - function(x - e)) - (function(x + 2 * e) - function(x - 2 * e))) / STEP)
    return np.stack(columns, -1) / 12


def curvature(function, x):
    """The Hessian of a scalar function."""
    return slope(lambda y: slope(function, y), x)


def counts(trajectories):
    """(n, S, A) how often each trajectory holds each decision."""
    out = np.zeros((len(trajectories), S, A))
    row, t = np.nonzero(trajectories.action >= 0)
    np.add.at(out, (row, trajectories.state[row, t], trajectories.action[row, t]), 1.0)
    return out
