"""What each sampler of exp(Q) is worth, by itself: `python -m benchmarks.samplers --save FILE`.

Flat Q in 1 to 8 dimensions, twenty random mixtures in two, and the value V = log ∫ exp(Q) da of a peak in eight, with
proposals from samplers that were trained.
"""

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from math import erf
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.spatial import cKDTree

from nearopt.agents import samplers
from nearopt.agents.importance import integrate
from nearopt.agents.networks import descend
from nearopt.agents.task import Task

ACTIONS, BATCH, PARTICLES, HIDDEN, MIXTURES = 20_000, 16, 32, (64, 64), 20
WHO = {  # sampler, space, components
    "Stein, unbounded": ("stein", "unbounded", 8),
    "Stein, box": ("stein", "box", 8),
    "Stein, released": ("stein", "released", 8),
    "one logistic": ("mixture", "unbounded", 1),
    "mixture of 8": ("mixture", "unbounded", 8),
}
STATE = jnp.ones((1, 1))


def form_of(name: str, size: int) -> samplers.Form:
    kind, space, components = WHO[name]
    task = Task(1, low=(-1.0,) * size, high=(1.0,) * size)
    return samplers.Form(task, kind, components, PARTICLES, space, ("rbf", "paper", 1.0))


@partial(jax.jit, static_argnums=(0, 1, 2))
def train(form: samplers.Form, energy: Callable, steps: int, about: Any, seed: Any) -> tuple[Any, Any]:
    """A sampler for one state, and actions of it (n, A). energy(about, action (..., A)) → (...)."""
    keys = jax.random.split(jax.random.key(seed), 4)
    network = samplers.init(form, HIDDEN, "relu", keys[0])
    adam = optax.adam(optax.cosine_decay_schedule(1e-3, steps))
    log_p = lambda row, action: energy(about, action)
    rows = jnp.broadcast_to(STATE, (BATCH, 1))

    def step(carry: Any, key: Any) -> tuple[Any, None]:
        network, moments = carry
        first, second = jax.random.split(key)
        xi = jax.random.normal(first, (BATCH, PARTICLES, form.task.action_size))
        slope = jax.grad(lambda n: samplers.ascent(form, n, log_p, rows, xi, second)[0])(network)
        network, moments = descend(adam, slope, moments, network)
        return (network, moments), None

    start = (network, adam.init(network))
    (network, _), _ = jax.lax.scan(step, start, jax.random.split(keys[1], steps))
    xi = jax.random.normal(keys[2], (1, ACTIONS, form.task.action_size))
    return network, samplers.draw(form, network, STATE, xi, keys[3])[0]


# ---------------------------------------------------------------- a flat Q
def flat(about: Any, action: Any) -> Any:
    return jnp.zeros(action.shape[:-1])


def divergence(action: np.ndarray, seed: int = 0, k: int = 10) -> float:
    """KL to uniform, in nats, by nearest neighbours in two samples (Wang, Kulkarni and Verdú 2009)."""
    size = action.shape[1]
    other = np.random.default_rng(seed).uniform(-1, 1, action.shape)
    own = cKDTree(action).query(action, k + 1)[0][:, -1]
    across = cKDTree(other).query(action, k)[0][:, -1]
    return size * float(np.mean(np.log(across / own))) + float(np.log(len(other) / (len(action) - 1)))


def flat_table(sizes: tuple[int, ...], steps: int) -> list[str]:
    lines = [
        f"| {steps:,} updates | " + " | ".join(f"d = {size}" for size in sizes) + " |",
        "|---|" + "---:|" * len(sizes),
    ]
    for name in WHO:
        drawn = [np.asarray(train(form_of(name, size), flat, steps, 0.0, 0)[1], float) for size in sizes]
        cells = [f"{divergence(action) / action.shape[1]:.4f}" for action in drawn]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


# ---------------------------------------------------------------- random mixtures
def worlds(seed: int = 0) -> list[np.ndarray]:
    """Centres (6, 2), widths and log weights of mixtures with 2 to 6 modes; weight 0 where there are fewer."""
    rng, out = np.random.default_rng(seed), []
    for _ in range(MIXTURES):
        number = rng.integers(2, 7)
        weight = np.full(6, -np.inf)
        weight[:number] = np.log(rng.dirichlet(np.full(number, 5.0)))
        out.append(np.column_stack([rng.uniform(-0.8, 0.8, (6, 2)), rng.uniform(0.08, 0.2, 6), weight]))
    return out


def bumps(about: Any, action: Any) -> Any:
    square = ((action[..., None, :] - about[:, :2]) ** 2).sum(axis=-1)
    width = about[:, 2]
    return jax.nn.logsumexp(about[:, 3] - 2 * jnp.log(width) - square / (2 * width**2), axis=-1)


def exact(about: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Actions of the mixture itself, inside the box."""
    out = np.empty((0, 2))
    while len(out) < number:
        which = rng.choice(6, 2 * number, p=np.exp(about[:, 3]))
        drawn = about[which, :2] + about[which, 2:3] * rng.normal(size=(2 * number, 2))
        out = np.concatenate([out, drawn[(np.abs(drawn) < 1).all(axis=1)]])
    return out[:number]


def recall(about: np.ndarray, action: np.ndarray, truth: np.ndarray) -> float:
    """Of the modes, how many get at least half of the mass that is theirs, within two widths."""
    there = np.isfinite(about[:, 3])
    near = lambda x: (((x[:, None] - about[:, :2]) ** 2).sum(-1) < (2 * about[:, 2]) ** 2).mean(axis=0)
    return float((near(action) >= 0.5 * near(truth))[there].mean())


def discrepancy(x: np.ndarray, y: np.ndarray, width: float = 0.3) -> float:
    """The square root of the maximum mean discrepancy, of 2,000 actions each; kernel exp(−|x − y|²/(2 · 0.3²))."""
    mean = lambda a, b: np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * width**2)).mean()
    return float(np.sqrt(max(mean(x, x) + mean(y, y) - 2 * mean(x, y), 0.0)))


def mixture_table(steps: int) -> list[str]:
    rng, abouts = np.random.default_rng(1), worlds()
    truths = [exact(about, ACTIONS, rng) for about in abouts]
    lines = [
        f"| {steps:,} updates | mode recall, mean | all modes | MMD, median | MMD, worst |",
        "|---|---:|---:|---:|---:|",
    ]
    floor = [discrepancy(truth[:2000], truth[2000:4000]) for truth in truths]
    lines.append(f"| the mixture itself | 1.00 | {MIXTURES} | {np.median(floor):.3f} | {max(floor):.3f} |")
    for name in WHO:
        drawn = [np.asarray(train(form_of(name, 2), bumps, steps, jnp.float32(a), 0)[1], float) for a in abouts]
        found = [recall(*parts) for parts in zip(abouts, drawn, truths, strict=True)]
        apart = [discrepancy(a[:2000], t[:2000]) for a, t in zip(drawn, truths, strict=True)]
        cells = (f"{np.mean(found):.2f}", sum(f == 1 for f in found), f"{np.median(apart):.3f}", f"{max(apart):.3f}")
        lines.append(f"| {name} | " + " | ".join(map(str, cells)) + " |")
    return lines


# ---------------------------------------------------------------- the value of a peak
def peak(width: Any, action: Any) -> Any:
    return -0.5 * (action**2).sum(axis=-1) / width**2


def value_table(size: int, width: float, steps: int, samples: int = 64, repeats: int = 400) -> list[str]:
    truth = size * np.log(width * np.sqrt(2 * np.pi) * erf(1 / (width * 2**0.5)))
    lines = ["| proposal | bias of V, nats | effective sample size |", "|---|---:|---:|"]
    no_prior = lambda action: jnp.zeros(action.shape[:2])
    for name in ("uniform", "Stein, unbounded", "mixture of 8"):
        form = None if name == "uniform" else form_of(name, size)
        network = None if form is None else train(form, peak, steps, width, 0)[0]

        def one(key: Any, form: Any = form, network: Any = network) -> Any:
            first, second = jax.random.split(key)
            xi = jax.random.normal(first, (1, samples, size))
            proposal = None if form is None else samplers.proposal(form, network, STATE, xi)
            return integrate(partial(peak, width), no_prior, proposal, (1, samples, size), 0.1, second)

        found = jax.vmap(one)(jax.random.split(jax.random.key(3), repeats))
        bias, ess = float(found.log_integral.mean()) - truth, samples * float(found.ess.mean())
        lines.append(f"| {name} | {bias:+.3f} | {ess:.1f} of {samples} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    parts = [
        "# Samplers of exp(Q)\n",
        f"`python -m benchmarks.samplers --steps {options.steps} --save {options.save}`, {time.strftime('%Y-%m-%d')}, "
        f"jax {jax.__version__}, Python {platform.python_version()}, {jax.default_backend()}.\n",
        "## A flat Q: KL to uniform, nats per dimension\n",
        "The released form's fixed point is 0.125 away. By nearest neighbours; uniform actions tell ±0.005.\n",
        *flat_table((1, 2, 4, 8), options.steps),
        "\n## Twenty random mixtures in two dimensions\n",
        *mixture_table(options.steps),
        "\n## V of a peak of width 0.1 in eight dimensions, 64 actions\n",
        *value_table(8, 0.1, options.steps),
    ]
    text = "\n".join(parts) + "\n"
    print(text)
    if options.save is not None:
        options.save.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
