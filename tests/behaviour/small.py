"""One small world for many tests: whatever is asked of it shares compiled code."""

from dataclasses import replace

import jax
import numpy as np

import nearopt as no
from nearopt.behaviour.decisions import steps
from nearopt.behaviour.simulate import simulate
from nearopt.behaviour.uncertainty import Fit
from tests.behaviour.oracle import Agent

S, A, F, T = 4, 2, 3, 3
DISCOUNT = 0.8
STEP = 1e-3  # of finite differences, in extended precision and of fourth order


def world(transition=None, discount=DISCOUNT):
    """A model, features (S, A, F), and an agent whose reward is linear in them."""
    rng = np.random.default_rng(0)
    dense, features = rng.dirichlet(np.full(S, 0.4), (S, A)), rng.normal(size=(S, A, F))
    features[..., 0] = [[-2.0], [1.0], [2.0], [-1.0]]  # a matter of where one is
    transition = dense if transition is None else transition
    reward = features @ [1.5, -1.0, 0.5]
    agent = Agent(transition, np.ones((S, A), bool), reward, "choice", np.zeros((S, A)), discount)
    return no.MDP.from_arrays(transition, reward, discount=discount), features, agent


def log_table(agent, horizon=T):
    """log π as (T, S, A), or (S, A) of the infinite horizon: design §1 in extended precision."""
    gamma, tau, kappa = np.array([agent.discount, agent.temperature, agent.optimism], np.longdouble)
    reward = np.asarray(agent.reward, np.longdouble)
    axes = {"state": (..., None, None), "choice": (..., None), "branch": ()}[agent.kind.removeprefix("timed ")]
    value, rows = np.zeros(S, np.longdouble), []
    for t in reversed(range(horizon or 300)):
        r = (reward[t] if "timed" in agent.kind else reward)[axes]
        if kappa == 0:
            q = (agent.transition * (r + gamma * value)).sum(2)
        else:
            hope = np.exp(kappa * r / tau) * (gamma * np.exp(kappa * value / tau) + 1 - gamma)
            q = tau / kappa * np.log((agent.transition * hope).sum(2))
        logits = agent.log_prior + q / tau
        value = tau * np.logaddexp.reduce(logits, axis=1)
        rows.append(logits - value[:, None] / tau)
    return rows[-1] if horizon is None else np.stack(rows[::-1])


def behaviour(mdp, agent, n, horizon=T, seed=0):
    """n trajectories of T decisions, of four subjects."""
    policy = np.exp(log_table(agent, horizon)).astype(float)
    walks = simulate(mdp, policy, np.arange(n) % mdp.num_states, np.full(n, T), seed)
    return no.Trajectories(walks.state, walks.action, subject=np.arange(n) % 4)


def cut(trajectories, lengths):
    """The first decisions of some trajectories, so many (n,)."""
    keep = np.arange(trajectories.state.shape[1]) <= np.asarray(lengths)[:, None]
    return no.Trajectories(np.where(keep, trajectories.state, -1), np.where(keep[:, 1:], trajectories.action, -1))


def at(model, trajectories, theta):
    """The model as if θ had been fitted: nothing is optimised."""
    theta = np.asarray(theta, float)
    with jax.enable_x64(True):
        family = model.family(steps(trajectories, model.horizon))
        decisions = model.collect(trajectories, family, model.horizon)
        model.fit_ = Fit(family, theta, decisions, model.penalties(), np.ones(len(theta), bool))
    model.horizon_ = model.horizon
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
    """(n, T, S, A) how often each trajectory holds each decision."""
    out = np.zeros((len(trajectories), T, S, A))
    row, t = np.nonzero(trajectories.action >= 0)
    out[row, t, trajectories.state[row, t], trajectories.action[row, t]] = 1.0
    return out
