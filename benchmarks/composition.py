"""Two half-planes, one corner: `python -m benchmarks.composition --seeds 5 --save FILE`.

One agent learns to be right of a line, another above one, each alone; their composition was trained for neither corner
nor sum (Haarnoja et al. 2018, arXiv 1803.06773). Beside FILE goes a picture of trajectories.
"""

import argparse
import platform
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.spaces import Box

import nearopt as no
from nearopt.agents.agent import act, learn
from nearopt.agents.session import Session
from nearopt.environments.environment import Environment

SIDE, LINE, ROLLOUTS = 5.0, 3.0, 1_000
SETTINGS = dict(
    gamma=0.9,
    ent_coef=0.3,
    net_arch=[64, 64],
    learning_rate=1e-3,
    sampler_learning_rate=1e-3,
    learning_starts=1_000,
    train_freq=2,
    tau=0.02,
    target_update_interval=1,
    particles=16,
    value_samples=16,
)


class HalfPlane(Environment):
    """A point x in [−5, 5]² moves by its action in [−1, 1]². A step pays 1 where it ends beyond 3 along `axis`."""

    axis: int = eqx.field(static=True, default=0)
    max_episode_steps: int = eqx.field(static=True, default=20)

    @property
    def observation_space(self) -> Box:
        return Box(-SIDE, SIDE, (2,))

    @property
    def action_space(self) -> Box:
        return Box(-1.0, 1.0, (2,))

    def reset(self, key: Any) -> Any:
        return jax.random.normal(key, (2,))

    def observe(self, state: Any) -> Any:
        return state

    def step(self, key: Any, state: Any, action: Any) -> tuple[Any, Any, Any]:
        after = jnp.clip(state + jnp.clip(action, -1.0, 1.0), -SIDE, SIDE)
        return after, (after[self.axis] >= LINE).astype(jnp.float32), jnp.bool_(False)


def train(axis: int, seeds: int, steps: int, **settings: Any) -> list[no.SQL]:
    """One task's agents, which learn in step."""
    agents = [no.SQL(HalfPlane(axis), seed=2 * seed + axis, **SETTINGS | settings) for seed in range(seeds)]
    with Session(steps) as session:
        session.begin(agents)
        learn(agents, session)
    return agents


def rollouts(agent: Any, number: int, seed: int) -> np.ndarray:
    """Positions (steps + 1, number, 2)."""
    world = HalfPlane()
    keys = jax.random.split(jax.random.key(seed), world.max_episode_steps + 1)
    path = [jax.vmap(world.reset)(jax.random.split(keys[0], number))]
    for key in keys[1:]:
        action = act(agent.method, agent.settings, agent.state, path[-1], key, False)[0]
        path.append(jax.vmap(world.step, (None, 0, 0))(key, path[-1], action)[0])
    return np.asarray(path)


def ends(agent: Any) -> np.ndarray:
    """Of the rollouts, how many end right of the line, above it, and both: in the corner."""
    right, above = (rollouts(agent, ROLLOUTS, 1)[-1] >= LINE).T
    return np.array([right.mean(), above.mean(), (right & above).mean()])


def table(a: list[no.SQL], b: list[no.SQL], updates: int) -> tuple[list[str], dict[str, Any]]:
    """A line for each way to act, and the first seed's agents, by name."""
    pairs = list(zip(a, b, strict=True))
    double = 2 * float(SETTINGS["ent_coef"])
    who = {
        "a: x ≥ 3": a,
        "b: y ≥ 3": b,
        "no.compose([a, b])": [no.compose(pair, updates=updates) for pair in pairs],
        f"the mean of the Qs: ent_coef={double}": [no.compose(p, updates=updates, ent_coef=double) for p in pairs],
    }
    lines = []
    for name, agents in who.items():
        found = np.array([ends(agent) for agent in agents])
        right, above, corner = found.mean(axis=0)
        apart = f"{found[:, 2].min():.3f} to {found[:, 2].max():.3f}"
        lines.append(f"| {name} | {right:.3f} | {above:.3f} | {corner:.3f} | {apart} |")
        print(lines[-1], flush=True)
    return lines, {name: agents[0] for name, agents in who.items()}


def picture(agents: dict[str, Any], file: Path) -> None:
    """Trajectories of each; grey is what pays, darker what pays twice."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(agents), figsize=(4.2 * len(agents), 4.4), layout="constrained")
    for ax, (name, agent) in zip(axes, agents.items(), strict=True):
        path = rollouts(agent, 40, 3)
        for span in (ax.axvspan, ax.axhspan):
            span(LINE, SIDE, color="black", alpha=0.12, lw=0)
        ax.plot(path[..., 0], path[..., 1], color="C0", alpha=0.4, lw=0.8)
        ax.plot(*path[-1].T, "o", color="C3", ms=4)
        ax.set(title=name, xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE), aspect="equal", xlabel="x")
    axes[0].set_ylabel("y")
    figure.savefig(file, dpi=100)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--updates", type=int, default=2_000)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    begun = time.perf_counter()
    lines, firsts = table(*(train(axis, options.seeds, options.steps) for axis in range(2)), options.updates)
    seconds = time.perf_counter() - begun
    print(f"{seconds:.0f} s")
    if options.save is None:
        return
    picture(firsts, options.save.with_suffix(".png"))
    asked = f"--seeds {options.seeds} --steps {options.steps} --updates {options.updates} --save {options.save}"
    head = [
        f"# Two half-planes composed: {options.seeds} seeds",
        "",
        f"`python -m benchmarks.composition {asked}`, {time.strftime('%Y-%m-%d')}, jax {jax.__version__}, "
        f"Python {platform.python_version()}, {jax.local_device_count()} device ({jax.default_backend()}), "
        f"{seconds:.0f} s.",
        "",
        f"Two agents, {options.steps:,} steps each alone; then {options.updates:,} updates of a sampler of the sum of "
        f"their Qs, and nothing else. Of {ROLLOUTS:,} rollouts of 20 steps from about the middle of [−5, 5]²: how many "
        "end with x ≥ 3, with y ≥ 3, and with both; means over seeds, and the range of the last.",
        "",
        "| who acts | x ≥ 3 | y ≥ 3 | both | over seeds |",
        "|---|---:|---:|---:|---|",
    ]
    options.save.write_text("\n".join([*head, *lines, "", f"![trajectories]({options.save.stem}.png)", ""]), "utf-8")


if __name__ == "__main__":
    main()
