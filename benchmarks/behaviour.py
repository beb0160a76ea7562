"""Explaining behaviour: the bus engines, the labyrinth, and a large world. Recorded data lie beside the project."""

import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import nearopt as no
from benchmarks.harness import Row, best
from benchmarks.rows import slip_grid
from nearopt.behaviour.baselines import EmpiricalMarkov
from nearopt.behaviour.optimise import data_of, value_and_gradient
from nearopt.behaviour.simulate import simulate

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
PUBLISHED = {"state": "−1.67", "state_action": "−0.93", "state_action over time": "−0.36"}


def bus_engines() -> Iterator[Row]:
    """Rust (1987): the whole fit, compiled."""
    path = DATA / "bus_engines" / "group4.csv"
    if not path.exists():
        yield Row("bus engines", float("nan"), note=f"not run: no {path.name}")
        return
    from examples.bus_engines.bus import engine

    rows = np.genfromtxt(path, delimiter=",", names=True, dtype=int)
    rows = rows[rows["period"] >= 1]
    buses = no.Trajectories.from_frame(rows, episode="bus", time="period", state="state", action="replaced")
    mdp, features = engine()
    model = no.BehaviourModel(mdp, features=features)
    seconds = best(lambda: model.fit(buses))
    note = f"RC {model.coef_[0]:.4f}, θ {model.coef_[1]:.4f}, −log L {-model.log_likelihood_:.3f}"
    yield Row("bus engines, 4,292 decisions: fit", seconds, aim="0.2 s", met=seconds <= 0.2, note=note)


def labyrinth() -> Iterator[Row]:
    """Mice in a labyrinth: fit and intervals, the first time (compiling) and again; held-out bits per decision."""
    path = DATA / "labyrinth" / "water_restricted.csv"
    if not path.exists():
        yield Row("labyrinth", float("nan"), note=f"not run: no {path.name}")
        return
    from examples.labyrinth.mice import MODELS, maze, read

    mdp, (train, held_out) = maze(), read(path)
    bits = lambda model: model.score(held_out) / np.log(2)
    for name, settings in MODELS.items():
        model, took = no.BehaviourModel(mdp, **settings), []
        for _ in range(3):
            start = time.perf_counter()
            model.fit(train).confidence_interval()
            took.append(time.perf_counter() - start)
        note = f"{bits(model):.3f} bits, aim {PUBLISHED[name]}; the first time {took[0]:.1f} s"
        yield Row(f"labyrinth, {name}: fit and intervals", min(took), aim="5 s", met=took[0] <= 5, note=note)
    for over_time in (False, True):
        markov = EmpiricalMarkov(mdp, time_varying=over_time).fit(train)
        name = "empirical Markov" + (" over time" if over_time else "")
        yield Row(f"labyrinth, {name}", float("nan"), note=f"{bits(markov):.3f} bits")


def likelihood(side: int = 316, count: int = 10_000, decisions: int = 100, width: int = 50) -> Iterator[Row]:
    """One likelihood with its gradient, compiled, at coefficients that it has not seen."""
    mdp = slip_grid(side).replace(discount=0.99)
    rng = np.random.default_rng(0)
    features = 0.1 * rng.normal(size=(mdp.num_states, mdp.num_actions, width))
    policy = mdp.available / np.maximum(mdp.available.sum(1, keepdims=True), 1)
    first = rng.choice(np.flatnonzero(~mdp.terminal), count)
    seen = simulate(mdp, policy, first, np.full(count, decisions), 0)
    size = f"{mdp.num_states:,} states, {width} features, {count:,} × {decisions} decisions"
    with jax.enable_x64(True):
        for horizon in (None, decisions):
            model = no.BehaviourModel(mdp, features=features, horizon=horizon)
            family = model.family(horizon)
            data, penalties = data_of(model.collect(seen, family, horizon)), model.penalties()
            guess = jnp.zeros(family.blocks.size)
            thetas = iter(rng.normal(0, 0.1, (10, width)))
            work = lambda: value_and_gradient(jnp.asarray(next(thetas)), family, data, penalties, guess)  # noqa: B023
            seconds = best(work)
            name = "infinite horizon" if horizon is None else f"horizon {horizon}"
            yield Row(f"likelihood and gradient, {size}, {name}", seconds, aim="3 s", met=seconds <= 3)


GROUPS = {f.__name__: f for f in (bus_engines, labyrinth, likelihood)}
