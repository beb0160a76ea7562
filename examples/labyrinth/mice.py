"""Mice in a labyrinth (Rosenberg et al., eLife 2021): which reward foretells what thirsty mice do next?

    python examples/labyrinth/mice.py water_restricted.csv

Beside every fitted reward stands the empirical Markov policy, smoothed counts of what was done where, which explains
the most and nothing at once.
"""

import sys

import numpy as np

import nearopt as no
from nearopt.behaviour.comparison import baselines, compare

LEAVES = 63  # the first of the leaves; node n's children are 2n+1 and 2n+2
MODELS = {
    "state": dict(reward="state", discount=0.9, l2=1e-4),
    "state_action": dict(reward="state_action", discount=0.9, l2=1e-4),
    "state_action over time": dict(reward="state_action", time_varying=True, horizon=22, l2=1e-5, smoothness=1e-4),
}


def maze() -> no.MDP:
    """127 nodes of a binary tree; left, right, reverse, stay."""
    nodes = np.arange(127)
    transition = np.zeros((127, 4, 127))
    inner = nodes < LEAVES
    transition[nodes, 0, np.where(inner, 2 * nodes + 1, nodes)] = 1
    transition[nodes, 1, np.where(inner, 2 * nodes + 2, nodes)] = 1
    transition[nodes, 2, np.maximum(nodes - 1, 0) // 2] = 1
    transition[nodes, 3, nodes] = 1
    depth = np.floor(np.log2(nodes + 1))
    across = (nodes + 1.5 - 2**depth) / 2**depth * 64
    return no.MDP.from_arrays(
        transition,
        np.zeros(127),
        initial=(nodes == 0).astype(float),
        action_names=["left", "right", "reverse", "stay"],
        positions=np.stack([across, depth], 1),
    )


def read(path: str) -> tuple[no.Trajectories, no.Trajectories]:
    """Training and held-out trajectories, as published."""
    rows = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf8")
    part = lambda name: no.Trajectories.from_frame(rows[rows["split"] == name])
    return part("train"), part("validation")


if __name__ == "__main__":
    mdp, (train, held_out) = maze(), read(sys.argv[1])
    for name, settings in MODELS.items():
        model = no.BehaviourModel(mdp, **settings).fit(train)
        error = np.median(model.stderr_)
        print(f"{name}: {model.num_parameters_:.0f} effective parameters, median standard error {error:.2f}")
        for row in compare({name: model} | baselines(model), train, held_out):
            print(f"  {row.bits:7.3f} bits per held-out decision  {row.name}")
