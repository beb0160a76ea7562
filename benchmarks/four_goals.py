"""Who keeps all four goals alive: `python -m benchmarks.four_goals --seeds 20 --save FILE`.

Soft Q-learning with both samplers, a Gaussian SAC at the same temperature, and SAC at next to none, in
nearopt/MultiGoal-v0, against the exact answer on a grid. Beside FILE goes a picture: Figure 1 of Haarnoja et al. 2017.
"""

import argparse
import platform
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import nearopt as no
from nearopt.agents.agent import act, learn
from nearopt.agents.session import Session
from nearopt.cli.tuned import tuned_settings
from nearopt.environments.multigoal import GOALS, Grid, MultiGoal, on_grid

ID, TEMPERATURE, ROLLOUTS, SAMPLES, CELLS = "nearopt/MultiGoal-v0", 10.0, 1_000, 200_000, 4
STATES = [(-2.5, 0.0), (0.0, 0.0), (2.5, 2.5)]
GAUSSIAN = dict(net_arch=[128, 128], learning_rate=1e-3, tau=0.02, train_freq=4, learning_starts=10_000, batch_size=64)
WHO = {
    "SQL, Stein": (no.SQL, {}),
    "SQL, mixture": (no.SQL, dict(sampler="mixture")),
    "SAC, temperature 10": (no.SAC, GAUSSIAN | dict(ent_coef=TEMPERATURE)),
    "SAC, tuned temperature": (no.SAC, GAUSSIAN),
    "SAC, temperature 0.01": (no.SAC, GAUSSIAN | dict(ent_coef=0.01)),
}


def train(kind: Any, settings: dict[str, Any], seeds: int, steps: int) -> tuple[list[Any], float]:
    """Agents that learned in step, and how long it took, compilation included."""
    begun = time.perf_counter()
    tuned = tuned_settings("sql", ID) if kind is no.SQL else {}
    agents = [kind(ID, seed=seed, **tuned | settings) for seed in range(seeds)]
    with Session(steps) as session:
        session.begin(agents)
        learn(agents, session)
    return agents, time.perf_counter() - begun


def rollouts(agent: Any, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions (steps + 1, number, 2), which stay where an episode ends; and whether it arrived."""
    world, keys = MultiGoal(), jax.random.split(jax.random.key(seed), 31)
    at = jax.vmap(world.reset)(jax.random.split(keys[0], number))
    done, path = jnp.zeros(number, bool), [at]
    for key in keys[1:]:
        action = act(agent.method, agent.settings, agent.state, at, key, False)[0]
        after, _, over = jax.vmap(world.step, (None, 0, 0))(key, at, action)
        at = jnp.where(done[:, None], at, after)
        done |= over
        path.append(at)
    return np.asarray(path), np.asarray(done)


def shares(agent: Any) -> np.ndarray:
    """Of the rollouts, how many arrive at each goal."""
    path, done = rollouts(agent, ROLLOUTS, 1)
    nearest = ((path[-1][:, None] - GOALS) ** 2).sum(axis=-1).argmin(axis=1)
    return np.array([(done & (nearest == goal)).mean() for goal in range(4)])


def variations(agent: Any, grid: Grid, policy: np.ndarray) -> list[float]:
    """Total variation to the exact policy at `STATES`, over the cells about the nodes of the grid."""
    out = []
    for state in STATES:
        rows = np.repeat(np.float32([state]), SAMPLES, axis=0)
        action = np.asarray(act(agent.method, agent.settings, agent.state, rows, jax.random.key(2), False)[0])
        cell = np.rint((action + 1) * CELLS).astype(int) @ np.array([2 * CELLS + 1, 1])
        share = np.bincount(cell, minlength=grid.mdp.num_actions) / SAMPLES
        out.append(0.5 * float(np.abs(share - policy[grid.nearest(state)]).sum()))
    return out


def row(name: str, seconds: float, found: np.ndarray, apart: np.ndarray) -> str:
    """A line of the table."""
    even = int(((found >= 0.15) & (found <= 0.35)).all(axis=1).sum())
    goals = ", ".join(f"{count}" for count in np.bincount((found > 0.01).sum(axis=1), minlength=5)[1:])
    middle = " / ".join(f"{x:.3f}" for x in np.median(apart, axis=0))
    worst = " / ".join(f"{x:.3f}" for x in apart.max(axis=0))
    within = int((apart <= 0.1).all(axis=1).sum())
    return f"| {name} | {even} | {goals} | {middle} | {worst} | {within} | {seconds:.0f} |"


def picture(agents: dict[str, Any], grid: Grid, policy: np.ndarray, file: Path) -> None:
    """Trajectories of the first seed of each; below the first one's Q and actions at three states, and exact ones."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 5, figsize=(18, 7.6), layout="constrained")
    for ax, (name, agent) in zip(axes[0], agents.items(), strict=True):
        path, _ = rollouts(agent, 40, 3)
        ax.plot(path[..., 0], path[..., 1], color="C0", alpha=0.5, lw=0.9)
        ax.plot(*GOALS.T, "o", color="C3", ms=9)
        ax.set(title=name, xlim=(-7, 7), ylim=(-7, 7), aspect="equal", xlabel="x")
    (name, first), nodes, levels = next(iter(agents.items())), np.linspace(-1, 1, 41), np.arange(-8, 0.5, 0.5)
    actions = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 2)
    look = dict(levels=levels, cmap="Greys_r", extend="min")
    for ax, state in zip(axes[1], STATES, strict=False):
        q = first.q_values(np.repeat([state], len(actions), axis=0), actions).reshape(41, 41)
        ax.contourf(nodes, nodes, (q.T - q.max()) / TEMPERATURE, **look)
        drawn, _ = first.predict(np.repeat([state], 300, axis=0))
        ax.plot(*drawn.T, ".", color="C0", ms=4)
        ax.set(title=f"{name} at {state}: Q/τ, actions")
    nodes, rng = np.linspace(-1, 1, 2 * CELLS + 1), np.random.default_rng(4)
    for ax, state in zip(axes[1, 3:], STATES[1:], strict=True):
        row = policy[grid.nearest(state)]
        shown = np.log(row / row.max()).reshape(len(nodes), len(nodes))
        ax.contourf(nodes, nodes, shown.T, **look)
        drawn = grid.actions[rng.choice(len(row), 300, p=row / row.sum())]
        ax.plot(*(drawn + rng.uniform(-0.5 / CELLS, 0.5 / CELLS, drawn.shape)).clip(-1, 1).T, ".", color="C1", ms=4)
        ax.set(title=f"exact at {state}: log π, actions")
    for ax in axes[1]:
        ax.set(xlabel="x velocity", aspect="equal", xlim=(-1, 1), ylim=(-1, 1))
    axes[0, 0].set_ylabel("y")
    axes[1, 0].set_ylabel("y velocity")
    figure.savefig(file, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    grid = on_grid(MultiGoal(), CELLS, 0.99)
    policy = no.solve(grid.mdp, temperature=TEMPERATURE, prior=grid.prior).policy
    lines, firsts = [], {}
    for name, (kind, settings) in WHO.items():
        agents, seconds = train(kind, settings, options.seeds, options.steps)
        found = np.array([shares(agent) for agent in agents])
        apart = np.array([variations(agent, grid, policy) for agent in agents])
        firsts[name] = agents[0]
        lines.append(row(name, seconds, found, apart))
        print(lines[-1], flush=True)
    if options.save is None:
        return
    matplotlib.use("Agg")
    picture(firsts, grid, policy, options.save.with_suffix(".png"))
    head = [
        f"# Four goals: {options.seeds} seeds of {options.steps:,} steps",
        "",
        f"`python -m benchmarks.four_goals --seeds {options.seeds} --steps {options.steps} --save {options.save}`, "
        f"{time.strftime('%Y-%m-%d')}, jax {jax.__version__}, Python {platform.python_version()}, "
        f"{jax.local_device_count()} device ({jax.default_backend()}).",
        "",
        f"Even: seeds of which every goal gets 15 to 35 % of {ROLLOUTS:,} rollouts. Goals: seeds with more than 1 % at"
        " 1, 2, 3, 4 of them. Apart: total variation to the exact policy at (−2.5, 0) / (0, 0) / (2.5, 2.5), median and"
        " worst over seeds, and how many seeds stay within 0.1 at all three.",
        "",
        "| agent | even | goals 1, 2, 3, 4 | apart, median | apart, worst | within 0.1 | seconds |",
        "|---|---:|---|---|---|---:|---:|",
    ]
    options.save.write_text("\n".join([*head, *lines, "", f"![four goals]({options.save.stem}.png)", ""]), "utf-8")


if __name__ == "__main__":
    main()
