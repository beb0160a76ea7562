"""When does Harold Zurcher replace a bus engine? Rust (1987), group 4, as maximum causal entropy: RC and the cost θ."""

import sys

import numpy as np

import nearopt as no

BINS, MILEAGE = 90, [0.39189182, 0.59529371, 0.01281447]  # bins of 5,000 miles; chance of 0, 1, 2 more in a month


def engine() -> tuple[no.MDP, np.ndarray]:
    """The model, and the features of keep (−0.001 · bin) and replace (−1)."""
    transition, features = np.zeros((BINS, 2, BINS)), np.zeros((BINS, 2, 2))
    for bin_ in range(BINS):
        for more, chance in enumerate(MILEAGE):
            transition[bin_, 0, min(bin_ + more, BINS - 1)] += chance
            transition[bin_, 1, more] += chance
    features[:, 1, 0] = -1.0
    features[:, 0, 1] = -0.001 * np.arange(BINS)
    mdp = no.MDP.from_arrays(transition, np.zeros(BINS), discount=0.9999, action_names=["keep", "replace"])
    return mdp, features


if __name__ == "__main__":
    rows = np.genfromtxt(sys.argv[1], delimiter=",", names=True, dtype=int)  # bus, period, state, replaced
    rows = rows[rows["period"] >= 1]
    buses = no.Trajectories.from_frame(rows, episode="bus", time="period", state="state", action="replaced")
    mdp, features = engine()
    model = no.BehaviourModel(mdp, features=features).fit(buses)
    print(f"RC {model.coef_[0]:.4f}, theta {model.coef_[1]:.4f}, -log L {-model.log_likelihood_:.3f}")
    for kind in ("opg", "hessian", "sandwich"):
        print(f"standard errors, {kind:9}", *(f"{error:.4f}" for error in model.stderr(kind)))
    print(f"is he optimistic?  {model.optimism_test(buses).describe()}")
