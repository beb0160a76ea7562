"""(I − P) x = b, for the policy's matrix P of a Newton step: matrix-free, or factorised where that is quicker."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float
from scipy.sparse.linalg import LinearOperator, bicgstab, splu

from nearopt.backup import fold, slabs
from nearopt.mdp.blocks import Blocks, concatenate

DIRECT = 2000  # states up to which a factorisation is quicker than a Krylov method
RESCUE = 200_000  # states up to which one is tried where the Krylov method fails
MOST_ITERATIONS = 1500  # of the Krylov method in one solve: two passes each


@dataclass
class Work:
    """What has been done: passes over the transitions, and Newton steps. `tell` hears of the progress; `watch` sees
    the iterates of long iterations, and raises where they go nowhere.
    """

    tell: Callable[[str], None] = field(default=lambda text: None)
    watch: Callable[[np.ndarray], None] = field(default=lambda value: None)
    passes: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Kernel:
    """P as weights on the branches of the model, in block order: (K, J, n) per block."""

    blocks: Blocks
    weights: tuple[Float[Array, "K J n"], ...]

    @property
    def size(self) -> int:
        return self.blocks.size

    def apply(self, vector: np.ndarray) -> np.ndarray:
        """P x."""
        return np.asarray(product(self.blocks, self.weights, jnp.asarray(vector)))

    @cached_property
    def matrix(self) -> scipy.sparse.csc_array:
        """P itself."""
        columns = np.concatenate([np.asarray(b.next_state).reshape(-1) for b in self.blocks.blocks])
        values = np.asarray(concatenate(list(self.weights)))
        start, rows = 0, []
        for block in self.blocks.blocks:
            rows.append(np.broadcast_to(start + np.arange(block.state.size), block.next_state.shape).reshape(-1))
            start += block.state.size
        kept = values != 0
        entries = (values[kept], (np.concatenate(rows)[kept], columns[kept]))
        return scipy.sparse.coo_array(entries, shape=(self.size, self.size)).tocsc()


@eqx.filter_jit
def product(blocks: Blocks, weights: tuple[Array, ...], vector: Float[Array, " n"]) -> Float[Array, " n"]:
    rows = []
    for block, weight in zip(blocks.blocks, weights, strict=True):
        flat = (-1, block.state.size)
        parts = zip(slabs(weight.reshape(flat)), slabs(block.next_state.reshape(flat)), strict=True)
        rows.append(fold(jnp.add, [w * vector.at[s].get(mode="promise_in_bounds") for w, s in parts]))
    return concatenate(rows)


@dataclass(frozen=True)
class Table:
    """P as a sparse matrix in public order."""

    matrix: scipy.sparse.csr_array

    @property
    def size(self) -> int:
        return self.matrix.shape[0]

    def apply(self, vector: np.ndarray) -> np.ndarray:
        return self.matrix @ vector


def solve(kernel: Kernel | Table, b: np.ndarray, accuracy: float, work: Work, guess: Any = None) -> np.ndarray:
    """x with |b − (I − P) x| ≤ accuracy·|b| in the Euclidean norm, or as near as can be reached.

    NaN where I − P is singular. A factorisation counts as one pass.
    """
    if kernel.size <= DIRECT:
        return factorised(kernel, b, work)
    passes = work.passes

    def apply(x: np.ndarray) -> np.ndarray:
        work.passes += 1
        return x - kernel.apply(x)

    system = LinearOperator((kernel.size, kernel.size), matvec=apply, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    with np.errstate(all="ignore"):
        x, failed = bicgstab(system, b, x0=guess, rtol=accuracy, atol=0.0, maxiter=MOST_ITERATIONS)
    work.tell(f"{work.passes - passes:,} Krylov passes")
    if not failed and np.isfinite(x).all():
        return x
    if kernel.size <= RESCUE:
        return factorised(kernel, b, work)
    return x


def factorised(kernel: Kernel | Table, b: np.ndarray, work: Work) -> np.ndarray:
    work.passes += 1
    identity = scipy.sparse.eye_array(kernel.size, format="csc")
    try:
        return splu((identity - kernel.matrix).tocsc()).solve(b)
    except RuntimeError:  # exactly singular
        return np.full(kernel.size, np.nan)
