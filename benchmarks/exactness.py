"""Agents that learn by experience against `nearopt.solve`: `python -m benchmarks.exactness --save FILE`.

Twenty random MDPs and four mazes, 10⁻² the aim. The distance is the largest |V − V*| over all states that are no end,
of the same agent after three, six and all ten tenths of its steps; each part has a tenth of the learning rate before.
Episodes start anywhere and are cut off after 20 steps, which changes no value.
"""

import argparse
import platform
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import nearopt as no
from nearopt.environments.tabular import Tabular

DISCOUNT, NEAR, WORLDS, STATES, ACTIONS, BRANCHES, STREAMS = 0.9, 1e-2, 20, 6, 3, 3, 256
MAZES = ["S.#.G\n..#..\n.....", "S...\n.#..\n.#.#\n...G", "S....\n.#.#.\n....G", "S.G\n...\n#.#\n...\n#.."]
PARTS = np.array([0.3, 0.6, 1.0])
SHARED = dict(gamma=DISCOUNT, net_arch=[64], n_envs=STREAMS)
REPLAY = dict(tau=0.05, buffer_size=3_000_000)
CHANCE = REPLAY | dict(ent_coef=0.5, learning_rate=1e-3, batch_size=1_024, learning_starts=1_500_000)
SURE = REPLAY | dict(ent_coef=0.1, learning_rate=1e-3, batch_size=128, learning_starts=25_600)
ROLLOUT = dict(n_steps=16, batch_size=4_096, gae_lambda=0.5)
WHO: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {  # class, settings in random MDPs, in mazes
    "SoftDQN": (no.SoftDQN, CHANCE, SURE),
    "DiscreteSAC": (no.DiscreteSAC, CHANCE, SURE),
    "PCL, first": (no.PCL, CHANCE | dict(n_steps=1, gradient="first"), SURE | dict(n_steps=1, gradient="first")),
    "PCL, path of 5": (no.PCL, CHANCE | dict(n_steps=5), SURE | dict(n_steps=5)),
    "SoftPG": (
        no.SoftPG,
        ROLLOUT | dict(ent_coef=0.5, learning_rate=1e-3),
        ROLLOUT | dict(ent_coef=0.1, learning_rate=1e-3),
    ),
}
LAST = (dict(batch_size=2_048), dict(n_steps=64, batch_size=16_384))  # later on: off-policy, on-policy
STEPS = {"SoftPG": (8_000_000, 4_000_000)}  # in random MDPs, in mazes
OTHERS = (2_300_000, 500_000)


def random_mdp(seed: int) -> no.MDP:
    """Every action leads to three of six states by chance; rewards are normal, of width ½."""
    rng = np.random.default_rng(seed)
    transition = np.zeros((STATES, ACTIONS, STATES))
    for s in range(STATES):
        for a in range(ACTIONS):
            transition[s, a, rng.choice(STATES, BRANCHES, replace=False)] = rng.dirichlet(np.ones(BRANCHES))
    reward = rng.normal(scale=0.5, size=(STATES, ACTIONS))
    return no.MDP.from_arrays(transition, reward, initial=np.full(STATES, 1 / STATES), discount=DISCOUNT)


def maze(text: str) -> no.MDP:
    mdp = no.MDP.from_grid(text, step_reward=-0.1, goal_reward=1.0, discount=DISCOUNT)
    return mdp.replace(initial=~mdp.terminal / np.sum(~mdp.terminal))


def distances(kind: Any, settings: dict[str, Any], mdp: no.MDP, steps: int) -> list[float]:
    """After each part of the steps."""
    agent = kind(Tabular(mdp, max_episode_steps=20), seed=0, **SHARED | settings)
    exact = no.solve(mdp, temperature=agent.temperature).value
    live = np.flatnonzero(~mdp.terminal)
    seen, out = np.eye(mdp.num_states, dtype=np.float32)[live], []
    begins = settings.get("learning_starts", 0)
    for part in PARTS:
        until = begins + int(part * (steps - begins))
        agent.learn(until - agent.steps, log_every=steps)
        if part < 1:  # steps get smaller as the aim gets nearer; what was seen stays
            kept = agent.buffer
            agent.renew(dict(learning_rate=agent.settings.learning_rate / 10, **LAST[kind is no.SoftPG]))
            if kind is not no.SoftPG:
                agent.buffer = kept
        out.append(float(np.abs(agent.soft_value(seen) - exact[live]).max()))
    return out


def row(name: str, what: str, found: np.ndarray, seconds: float) -> str:
    """A line of the table: distances (worlds, parts)."""
    middle = " / ".join(f"{x:.4f}" for x in np.median(found, axis=0))
    within, all_of_them = int((found[:, -1] <= NEAR).sum()), len(found)
    return f"| {name} | {what} | {middle} | {found[:, -1].max():.4f} | {within} of {all_of_them} | {seconds:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=WORLDS)
    parser.add_argument("--only", default="")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    lines = []
    for name, (kind, *settings) in WHO.items():
        if options.only not in name:
            continue
        steps = STEPS.get(name, OTHERS)
        worlds = [("random MDPs", [random_mdp(s) for s in range(options.worlds)]), ("mazes", [maze(t) for t in MAZES])]
        for (what, mdps), given, number in zip(worlds, settings, steps, strict=True):
            begun = time.perf_counter()
            found = np.array([distances(kind, given, mdp, number) for mdp in mdps])
            lines.append(row(name, what, found, time.perf_counter() - begun))
            print(lines[-1], flush=True)
    if options.save is None:
        return
    head = [
        "# Agents against exact values",
        "",
        f"`python -m benchmarks.exactness --save {options.save}`, {time.strftime('%Y-%m-%d')}, jax {jax.__version__}, "
        f"Python {platform.python_version()}, {jax.default_backend()}.",
        "",
        f"The largest |V − V*| over states; medians over {options.worlds} random MDPs and four mazes after 30, 60 and "
        "100 % of the steps, each part at a tenth of the learning rate before; the worst world at the end; how many "
        f"are within {NEAR}.",
        "",
        "| agent | worlds | median after 30 / 60 / 100 % | worst | within 0.01 | seconds |",
        "|---|---|---|---:|---:|---:|",
    ]
    options.save.write_text("\n".join([*head, *lines, ""]), "utf-8")


if __name__ == "__main__":
    main()
