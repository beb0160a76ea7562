"""Arithmetic that JAX has got wrong (jax #39103) or may get wrong, against plain NumPy.

Each function computes one thing with JAX; `arithmetic` compares all of them, row by row.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nearopt.inference.posterior import infer
from nearopt.mdp.model import MDP

SUMS = ((np.float64, 16_385), (np.float32, 32_769))  # the sizes at which jaxlib 0.10.2 is wrong
BACKUPS = (16_385, 200_003)
TEMPERATURE = 0.7


def arithmetic() -> Iterator[tuple[str, bool, str]]:
    """(what, whether it is right, detail) of every comparison, computed when asked for."""
    for dtype, n in SUMS if cpu() else ():
        row = np.arange(n, dtype=dtype)
        what = f"matrix-vector products, summed, {n:,} rows, {np.dtype(dtype).name}"
        yield what, *compare(batched_sums(dtype, n), row * row, 1e-6 if dtype is np.float32 else 1e-14)
    for n in BACKUPS:
        mdp, final_value = random_model(n)
        got, expected = soft_backup(mdp, final_value), plain_backup(mdp, final_value)
        yield f"soft backup, {n:,} states", *compare(got, expected, 1e-12)


def compare(got: np.ndarray, expected: np.ndarray, tolerance: float) -> tuple[bool, str]:
    """Whether every entry agrees, relative to its size or to 1, and which does not."""
    wrong = ~(np.abs(got - expected) <= tolerance * np.maximum(1, np.abs(expected)))  # NaN is wrong
    if not wrong.any():
        return True, "agrees with NumPy"
    i = int(np.argmax(wrong))
    return False, f"{wrong.sum():,} of {len(got):,} wrong; entry {i} is {got[i]:.17g}, not {expected[i]:.17g}"


def cpu() -> Any:
    """The device; None where JAX_PLATFORMS leaves it out."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def batched_sums(dtype: type, n: int) -> np.ndarray:
    """jax #39103: Σ (I·x)² for x = (i, 0, 0), i < n; jaxlib 0.10.2 gets the last rows wrong, on the CPU, under jit."""
    with jax.enable_x64(True), jax.default_device(cpu()):
        i = jnp.arange(n, dtype=dtype)
        x = jnp.stack((i, jnp.zeros_like(i), jnp.zeros_like(i)), axis=1)
        matrix = jnp.eye(3, dtype=dtype)
        return np.asarray(jax.jit(jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2)))(x))


def random_model(n: int) -> tuple[MDP, np.ndarray]:
    """n states, two actions, two branches each; and a final value."""
    rng = np.random.default_rng(n)
    first = rng.integers(0, n - 1, 2 * n)
    low = rng.uniform(0.1, 0.9, 2 * n)
    mdp = MDP(
        choice_offset=np.arange(n + 1) * 2,
        choice_action=np.tile([0, 1], n),
        branch_offset=np.arange(2 * n + 1) * 2,
        probability=np.stack([low, 1 - low], 1).reshape(-1),
        next_state=np.stack([first, first + 1], 1).reshape(-1),
        branch_reward=rng.normal(-1, 1, 4 * n),
        initial=np.full(n, 1 / n),
        num_actions=2,
    )
    return mdp, rng.normal(-3, 2, n)


def soft_backup(mdp: MDP, final_value: np.ndarray) -> np.ndarray:
    """V of every state before one decision, and the log partition function, which sums over all states."""
    post = infer(mdp, 1, temperature=TEMPERATURE, final_value=final_value)
    return np.append(post.value[0], post.log_partition)


def plain_backup(mdp: MDP, final_value: np.ndarray) -> np.ndarray:
    """The same from the equations: Q/τ = log E exp((r + V)/τ), V/τ = log Σ_a exp(Q/τ)."""
    x = np.log(mdp.probability) + (mdp.branch_reward + final_value[mdp.next_state]) / TEMPERATURE
    q = np.logaddexp(x[0::2], x[1::2])
    value = np.logaddexp(q[0::2], q[1::2])
    return np.append(TEMPERATURE * value, np.logaddexp.reduce(value) - np.log(mdp.num_states))
