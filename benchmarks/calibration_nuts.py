"""`python -m benchmarks.calibration_nuts [--replications N] [--minutes M] [--only CASE ...] [--save FILE]`.

Simulation-based calibration of `BehaviourModel.sample` (Talts, Betancourt, Simpson, Vehtari & Gelman 2018): parameters
are drawn from the prior, an agent acts by its policy for them in a world that moves by its true p, and the posterior is
sampled. If every piece is right, the rank of the true parameter among the draws is uniform. Policies come from the
NumPy functions below, which share nothing with the package.
"""

import argparse
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import scipy.stats

import nearopt as no
from benchmarks.harness import machine
from nearopt.behaviour.posterior import Settings, energy, explore, make_target, published
from nearopt.behaviour.uncertainty import Fit

DRAWS, THIN, WARMUP = 63, 3, 200  # ranks are 0 .. DRAWS, of every THIN-th draw
BINS = 16
SWEEPS = 2000  # of the infinite horizon, at most


# ---------------------------------------------------------------- agents, in NumPy
@dataclass(frozen=True, eq=False)
class World:
    transition: np.ndarray  # (S, A, S), every action available, no terminal states
    features: np.ndarray  # (S, A, F)
    discount: float


def make_world(seed: int, features: int = 2, states: int = 4, actions: int = 3, discount: float = 0.9) -> World:
    """Two next states per choice, so that luck matters."""
    rng = np.random.default_rng(seed)
    transition = np.zeros((states, actions, states))
    for s, a in np.ndindex(states, actions):
        transition[s, a, rng.choice(states, 2, replace=False)] = rng.dirichlet([2.0, 2.0])
    return World(transition, rng.normal(size=(states, actions, features)), discount)


@dataclass(frozen=True, eq=False)
class Agents:
    """m agents of one world; design §1. An optimism of exactly 0 in all of them is the arithmetic mean."""

    world: World
    reward: np.ndarray  # (m, S, A) or (m, T, S, A)
    temperature: np.ndarray  # (m,)
    optimism: np.ndarray
    discount: np.ndarray
    log_prior: np.ndarray  # (m, A)

    def backup(self, value: np.ndarray, reward: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """V_{t+1} (m, S) → V_t and π_t (m, S, A)."""
        tau, kappa, gamma = (x[:, None, None] for x in (self.temperature, self.optimism, self.discount))
        if (self.optimism == 0).all():
            q = reward + gamma * np.einsum("sat,mt->msa", self.world.transition, value)
        else:  # the reward of (s, a) leaves the mean
            arrive = gamma[..., 0] * np.exp((kappa / tau)[..., 0] * value) + 1 - gamma[..., 0]
            q = reward + tau / kappa * np.log(np.einsum("sat,mt->msa", self.world.transition, arrive))
        logit = q / tau + self.log_prior[:, None]
        top = logit.max(axis=2, keepdims=True)
        log_sum = top + np.log(np.exp(logit - top).sum(axis=2, keepdims=True))
        return (tau * log_sum)[..., 0], np.exp(logit - log_sum)

    def policy(self, horizon: int | None) -> np.ndarray:
        """(m, T, S, A); T = 1 of the infinite horizon."""
        value = np.zeros((len(self.reward), self.reward.shape[-2]))
        if horizon is None:
            for _ in range(SWEEPS):
                later, policy = self.backup(value, self.reward)
                if np.abs(later - value).max() < 1e-11:
                    return policy[:, None]
                value = later
            raise ArithmeticError("the sweeps do not stand still")
        steps = []
        for t in reversed(range(horizon)):
            value, policy = self.backup(value, self.reward if self.reward.ndim == 3 else self.reward[:, t])
            steps.append(policy)
        return np.stack(steps[::-1], axis=1)


def simulate(rng: np.random.Generator, world: World, policy: np.ndarray, lengths: np.ndarray) -> no.Trajectories:
    """One agent's episodes, from first states drawn uniformly; policy (T, S, A), of which an episode of length L goes
    through the last L steps. The world moves by its own p.
    """
    draw = lambda p: (rng.random((len(p), 1)) > p.cumsum(axis=1)[:, :-1]).sum(axis=1)
    states = [rng.integers(len(world.transition), size=len(lengths))]
    actions = []
    for t in range(lengths.max()):
        step = np.zeros_like(lengths) if len(policy) == 1 else np.minimum(len(policy) - lengths + t, len(policy) - 1)
        actions.append(draw(policy[step, states[-1]]))
        states.append(draw(world.transition[states[-1], actions[-1]]))
    keep = np.arange(lengths.max() + 1) <= lengths[:, None]
    state = np.where(keep, np.stack(states, axis=1), -1)
    return no.Trajectories.from_arrays(state, np.where(keep[:, 1:], np.stack(actions, axis=1), -1))


# ---------------------------------------------------------------- what is calibrated
@dataclass(frozen=True)
class Case:
    """A family of agents, the prior of its parameters, and how much of each agent is seen."""

    name: str
    settings: dict[str, Any]  # of BehaviourModel
    priors: dict[str, tuple[float, float]]  # as in `sample`
    seed: int = 1
    reward: tuple[float, float] | None = None  # the model's own: slope and offset of the first feature
    lengths: tuple[int, ...] = (6,) * 12
    features: int = 2
    world: World = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "world", make_world(self.seed, self.features))

    @property
    def own_reward(self) -> np.ndarray:
        slope, offset = self.reward or (0.0, 0.0)
        return slope * self.world.features[..., 0] + offset

    def model(self) -> no.BehaviourModel:
        mdp = no.MDP.from_arrays(self.world.transition, self.own_reward, discount=self.world.discount)
        own = {} if self.reward else {"features": self.world.features}
        return no.BehaviourModel(mdp, **own, **self.settings)

    @property
    def span(self) -> int | None:
        horizon = self.settings.get("horizon")
        return max(self.lengths) if horizon == "episode" else horizon

    def draw(self, rng: np.random.Generator, m: int) -> np.ndarray:
        """(m, Q) θ of agents drawn from the prior, in the order of `Family`."""
        parts = [self.draw_coef(rng, m)] if not self.reward else []
        scale_free = not self.reward and self.settings.get("temperature") == "fit"
        dials = [d for d in ("temperature", "optimism", "discount") if self.settings.get(d) == "fit"]
        names = [d for d in dials if not (d == "temperature" and scale_free)]
        names += ["log_prior"] * (self.world.features.shape[1] - 1) * (self.settings.get("prior") == "fit")
        parts += [rng.normal(*self.priors[name], size=(m, 1)) for name in names]
        return np.concatenate(parts, axis=1)

    def draw_coef(self, rng: np.random.Generator, m: int) -> np.ndarray:
        """Normal; or, where there is l2, with the precision 2N (l2 I + smoothness DᵀD) that penalties amount to."""
        size = self.features * (self.span if self.settings.get("time_varying") and self.span else 1)
        if not self.settings.get("l2"):
            return rng.normal(*self.priors["coef"], size=(m, size))
        differences = np.eye(size)[self.features :] - np.eye(size)[: size - self.features]
        precision = (
            self.settings["l2"] * np.eye(size) + self.settings.get("smoothness", 0) * differences.T @ differences
        )
        return rng.multivariate_normal(np.zeros(size), np.linalg.inv(2 * sum(self.lengths) * precision), size=m)

    def agents(self, theta: np.ndarray) -> Agents:
        """The agents at θ (m, Q)."""
        m, (_, actions, _) = len(theta), self.world.features.shape
        size = theta.shape[1]
        dials = [d for d in ("temperature", "optimism", "discount") if self.settings.get(d) == "fit"]
        dials = dials if self.reward else [d for d in dials if d != "temperature"]
        size -= len(dials) + (actions - 1) * (self.settings.get("prior") == "fit")
        coef, rest = theta[:, :size], dict(zip(dials, theta[:, size:].T, strict=False))
        fixed = lambda name, default: np.full(m, float(self.settings.get(name, default)))
        reward = np.broadcast_to(self.own_reward, (m, *self.own_reward.shape))
        if not self.reward:
            reward = np.einsum("saf,m...f->m...sa", self.world.features, coef.reshape(m, -1, self.features))
            reward = reward if self.settings.get("time_varying") else reward[:, 0]
        log_prior = np.zeros((m, actions))
        if self.settings.get("prior") == "fit":
            log_prior[:, 1:] = theta[:, size + len(dials) :]
            log_prior -= np.log(np.exp(log_prior).sum(axis=1, keepdims=True))
        elif self.settings.get("prior") == "uniform":
            log_prior -= np.log(actions)
        scale_free = not self.reward and self.settings.get("temperature") == "fit"
        temperature = fixed("temperature", 1.0) if not scale_free and "temperature" not in rest else np.ones(m)
        return Agents(
            self.world,
            reward,
            np.exp(rest["temperature"]) if "temperature" in rest else temperature,
            rest["optimism"] if "optimism" in rest else fixed("optimism", 0.0),
            1 / (1 + np.exp(-rest["discount"])) if "discount" in rest else fixed("discount", self.world.discount),
            log_prior,
        )


CASES = [
    Case("coefficients, infinite horizon", {}, {"coef": (0.0, 1.0)}),
    Case(
        "temperature and optimism, horizon 6",
        dict(reward="model", horizon=6, temperature="fit", optimism="fit"),
        {"temperature": (0.0, 0.7), "optimism": (0.0, 1.0)},
        reward=(1.0, 0.0),
    ),
    Case(
        "temperature and optimism, infinite horizon",
        dict(reward="model", temperature="fit", optimism="fit", prior="uniform"),
        {"temperature": (0.0, 0.5), "optimism": (1.5, 0.25)},  # with r ≤ 0 any optimism above 0 has a finite value
        reward=(0.3, -1.5),
    ),
    Case(
        "coefficients, optimism, propensities, horizon 6",
        dict(horizon=6, optimism="fit", prior="fit"),
        {"coef": (0.0, 1.0), "optimism": (0.0, 1.0), "log_prior": (0.0, 1.0)},
    ),
    Case(
        "coefficients and discount, infinite horizon",
        dict(discount="fit"),
        {"coef": (0.0, 1.0), "discount": (1.0, 1.0)},
    ),
    Case(
        "direction and temperature, own lengths",
        dict(horizon="episode", temperature="fit"),
        {"coef": (0.0, 1.0)},
        lengths=(2, 3, 4, 5, 6) * 3,
    ),
    Case(
        "coefficients over time, penalties as prior, horizon 4",
        dict(horizon=4, time_varying=True, l2=0.001, smoothness=0.005),
        {},
        lengths=(4,) * 15,
        features=1,
    ),
]


def quantities(case: Case) -> list[str]:
    """Names of the numbers whose ranks are taken."""
    model = case.model()
    with jax.enable_x64(True):
        family = model.family(case.span)
    return [*(f"coef {i}" for i in range(family.reward.size)), *family.public_names, "log posterior"]


@dataclass
class Ranks:
    """What the replications of a case have shown."""

    rank: list[np.ndarray] = field(default_factory=list)
    diverged: int = 0
    failed: int = 0
    seconds: float = 0.0


def fitted(case: Case, recorded: no.Trajectories) -> tuple[Fit, bool]:
    """The fit, and whether there is one; without one, as little data often are, the chain begins where fits begin."""
    model = case.model()
    try:
        return model.fit(recorded).fit_, True
    except (ValueError, UnboundLocalError):  # ours and SciPy's
        family = model.family(case.span)
        decisions = model.collect(recorded, family, model.horizon)
        return Fit(family, family.start, decisions, model.penalties(), np.ones(len(family.start), bool)), False


def replicate(case: Case, theta: np.ndarray, policy: np.ndarray, seed: int, into: Ranks) -> None:
    """One replication: behaviour of the agent at θ, its posterior, the ranks of the truth in it."""
    recorded = simulate(np.random.default_rng([seed, 1]), case.world, policy, np.array(case.lengths))
    begin = time.perf_counter()
    with warnings.catch_warnings(), jax.enable_x64(True):
        warnings.simplefilter("ignore")  # of fits to little data
        fit, worked = fitted(case, recorded)
        target = make_target(fit, case.priors)
        draws = explore(fit, target, Settings(WARMUP, 0.8), DRAWS * THIN, [jax.random.key(seed)])
        thinned = np.concatenate([draws.part[0, THIN - 1 :: THIN], theta[None]])
        public = np.asarray(published(fit.family, jnp.asarray(thinned)))
        own = -energy(theta, fit, target)[0]
    values = np.column_stack([public, np.append(draws.lp[0, THIN - 1 :: THIN], own)])
    into.rank.append((values[:-1] < values[-1]).sum(axis=0))
    into.diverged += int(draws.diverging.sum())
    into.failed += not worked
    into.seconds += time.perf_counter() - begin


def calibrate(case: Case, replications: int, seed: int = 0, deadline: float = np.inf) -> Ranks:
    """Replications until they are done or time is up."""
    found, theta = Ranks(), case.draw(np.random.default_rng(seed), replications)
    policy = case.agents(theta).policy(case.span)
    for i in range(replications):
        if time.monotonic() > deadline:
            break
        replicate(case, theta[i], policy[i], seed * 100_000 + i, found)
    return found


# ---------------------------------------------------------------- whether ranks are uniform
def chi_square(rank: np.ndarray, bins: int = BINS) -> float:
    """The p-value of Pearson's test on ranks 0 .. DRAWS."""
    return float(scipy.stats.chisquare(np.bincount(rank * bins // (DRAWS + 1), minlength=bins)).pvalue)


def ecdf(rank: np.ndarray, simulations: int = 4000) -> tuple[float, float]:
    """The largest deviation of the ECDF of ranks from the diagonal, and its p-value, by simulation."""
    ends = np.arange(1, DRAWS + 2)
    gap = lambda r: np.abs(np.bincount(r, minlength=DRAWS + 1).cumsum() / len(r) - ends / (DRAWS + 1)).max()
    rng, own = np.random.default_rng(0), gap(rank)
    chance = np.array([gap(rng.integers(DRAWS + 1, size=len(rank))) for _ in range(simulations)])
    return float(own), float((1 + (chance >= own - 1e-12).sum()) / (1 + simulations))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration_nuts", description=__doc__)
    parser.add_argument("--replications", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=15.0, help="in all; each case has its share")
    parser.add_argument("--only", type=int, nargs="+", default=list(range(len(CASES))), help="numbers of cases")
    parser.add_argument("--save", metavar="FILE")
    options = parser.parse_args()
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    show(f"{machine()} · numpyro {numpyro.__version__}\n")
    show(
        f"Ranks of the truth among {DRAWS} draws, every {THIN}rd of a chain after {WARMUP} steps of warm-up. χ²: "
        f"p-value of {BINS} equal bins; ECDF: largest deviation from uniform and its p-value.\n"
    )
    show("| case | replications | fits refused | diverged | ms each | quantity | χ² | ECDF | mean rank / its s.e. |")
    show("|---|---:|---:|---:|---:|---|---:|---:|---:|")
    smallest, count = 1.0, 0
    for which in options.only:
        case, end = CASES[which], time.monotonic() + options.minutes * 60 / len(options.only)
        found = calibrate(case, options.replications, seed=which + 1, deadline=end)
        ranks = np.array(found.rank)
        shares = f"{found.diverged / (len(ranks) * DRAWS * THIN):.2%} | {1e3 * found.seconds / len(ranks):.0f}"
        head = f"{case.name} | {len(ranks)} | {found.failed} | {shares}"
        for name, rank in zip(quantities(case), ranks.T, strict=True):
            p, (gap, q) = chi_square(rank), ecdf(rank)
            z = (rank.mean() - DRAWS / 2) / np.sqrt(((DRAWS + 1) ** 2 - 1) / 12 / len(rank))
            show(f"| {head} | {name} | {p:.3f} | {gap:.3f} ({q:.3f}) | {z:+.1f} |")
            smallest, count, head = min(smallest, p, q), count + 2, " | | | | "
    chance = 0.05 / count
    show(f"\nSmallest of {count} p-values: {smallest:.4f}; by chance alone it is one time in 20 below {chance:.5f}.")
    if options.save:
        only = "" if len(options.only) == len(CASES) else f" --only {' '.join(map(str, options.only))}"
        given = f" --replications {options.replications} --minutes {options.minutes:g}{only}"
        with open(options.save, "w", encoding="utf-8") as file:
            file.write(f"# python -m benchmarks.calibration_nuts{given}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
