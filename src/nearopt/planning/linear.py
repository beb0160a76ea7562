"""(I − P) x = b, for the policy's matrix P of a Newton step.

Small systems are factorised. Large ones are solved matrix-free by a Krylov method; where that takes long, because
episodes are long and information travels one state per product, by the same method on aggregated states (pyamg).
"""

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
EPS = 1e-12  # accuracy asked of one Krylov run: what is missing then is asked of the next
RESCUE = 200_000  # states up to which one is tried where the Krylov method fails
QUICK, LONG = 40, 60  # iterations of the Krylov method, matrix-free and with aggregation


@dataclass
class Work:
    """What has been done: passes over the transitions, and Newton steps. `tell` hears of the progress; `watch` sees
    the iterates of long iterations, and raises where they go nowhere.
    """

    tell: Callable[[str], None] = field(default=lambda text: None)
    watch: Callable[[np.ndarray], None] = field(default=lambda value: None)
    passes: int = 0
    steps: int = 0
    stiff: bool = False  # matrix-free iterations were too many once: aggregate at once


class Inverse:
    """(I − P)⁻¹ in two forms, each made once, when first asked for, from the assembled matrix."""

    matrix: Any

    @cached_property
    def system(self) -> scipy.sparse.csr_matrix:
        """I − P."""
        identity = scipy.sparse.eye_array(self.matrix.shape[0], format="csr")
        return scipy.sparse.csr_matrix(identity - self.matrix)

    @cached_property
    def factors(self) -> Any:
        """LU factors."""
        return splu(self.system.tocsc())

    @cached_property
    def hierarchy(self) -> Any:
        """Ever coarser chains, states aggregated by how strongly they are coupled (Bertsekas & Castañon 1989).

        Unsmoothed aggregation keeps every level a chain, whichever way it drifts, and Gauss-Seidel suits a drift.
        """
        import pyamg

        return pyamg.smoothed_aggregation_solver(
            self.system,
            symmetry="nonsymmetric",
            smooth=None,
            presmoother=("gauss_seidel", {"sweep": "forward"}),
            postsmoother=("gauss_seidel", {"sweep": "backward"}),
            max_coarse=500,
            coarse_solver="splu",
        )


@dataclass(frozen=True)
class Kernel(Inverse):
    """P as weights on the branches of the model, in block order: (K, J, n) per block."""

    blocks: Blocks
    weights: tuple[Float[Array, "K J n"], ...]

    @property
    def size(self) -> int:
        return self.blocks.size

    def apply(self, vector: np.ndarray) -> np.ndarray:
        """P x, matrix-free."""
        return np.asarray(product(self.blocks, self.weights, jnp.asarray(vector)))

    @cached_property
    def matrix(self) -> scipy.sparse.csr_array:
        """P, assembled."""
        columns = np.concatenate([np.asarray(b.next_state).reshape(-1) for b in self.blocks.blocks])
        values = np.asarray(concatenate(list(self.weights)))
        start, rows = 0, []
        for block in self.blocks.blocks:
            number = np.arange(start, start + block.state.size, dtype=np.int32)
            rows.append(np.broadcast_to(number, block.next_state.shape).reshape(-1))
            start += block.state.size
        kept = values != 0
        entries = (values[kept], (np.concatenate(rows)[kept], columns[kept]))
        return scipy.sparse.csr_array(scipy.sparse.coo_array(entries, shape=(self.size, self.size)))


@eqx.filter_jit
def product(blocks: Blocks, weights: tuple[Array, ...], vector: Float[Array, " n"]) -> Float[Array, " n"]:
    rows = []
    for block, weight in zip(blocks.blocks, weights, strict=True):
        flat = (-1, block.state.size)
        parts = zip(slabs(weight.reshape(flat)), slabs(block.next_state.reshape(flat)), strict=True)
        rows.append(fold(jnp.add, [w * vector.at[s].get(mode="promise_in_bounds") for w, s in parts]))
    return concatenate(rows)


@dataclass(frozen=True)
class Table(Inverse):
    """P as a sparse matrix in public order."""

    matrix: scipy.sparse.csr_array

    @property
    def size(self) -> int:
        return self.matrix.shape[0]  # pyright: ignore[reportOptionalSubscript]

    def apply(self, vector: np.ndarray) -> np.ndarray:
        return self.matrix @ vector


def solve(kernel: Kernel | Table, b: np.ndarray, accuracy: float, work: Work, guess: Any = None) -> np.ndarray:
    """x with |b − (I − P) x| ≤ accuracy·|b| in the maximum norm; NaN where it cannot be reached, or P is singular."""
    if kernel.size <= DIRECT:
        return factorised(kernel, b, work)
    x = np.zeros_like(b) if guess is None else guess
    gap = b - x + kernel.apply(x)
    target, before = accuracy * np.abs(b).max(), np.inf
    while (left := np.abs(gap).max()) > target:
        if not left < 0.5 * before:
            return factorised(kernel, b, work) if kernel.size <= RESCUE else np.full_like(b, np.nan)
        before, found = left, False
        rough = max(0.3 * target * np.sqrt(len(b)) / np.linalg.norm(gap), 0.3 * target / left)
        rough = float(np.clip(rough, EPS, 0.1))
        step = np.zeros_like(b)
        if not work.stiff:
            step, found = krylov(kernel.apply, gap, rough, QUICK, work)
        if not found:  # information has far to travel: aggregate
            work.stiff = True
            step = krylov(kernel.matrix.__matmul__, gap, rough, LONG, work, kernel.hierarchy)[0]
        if np.isfinite(step).all():
            x = x + step
        gap = b - x + kernel.apply(x)
        work.passes += 1
    return x


def krylov(
    apply: Callable[[np.ndarray], np.ndarray],
    b: np.ndarray,
    accuracy: float,
    longest: int,
    work: Work,
    hierarchy: Any = None,
) -> tuple[np.ndarray, bool]:
    """BiCGSTAB (van der Vorst 1992), and whether it got there."""
    shape = (len(b), len(b))

    def system(x: np.ndarray) -> np.ndarray:
        work.passes += 1
        if work.passes % 20 == 0:
            work.tell(f"step {work.steps}, {work.passes:,} passes")
        return x - apply(x)

    def cycle(x: np.ndarray) -> np.ndarray:
        work.passes += 3  # Gauss-Seidel up, residual, Gauss-Seidel down; coarser levels are a fraction of a pass
        return hierarchy.solve(x, tol=1e-300, maxiter=1, cycle="W")

    operator = LinearOperator(shape, matvec=system, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    inverse = None if hierarchy is None else LinearOperator(shape, matvec=cycle, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    with np.errstate(all="ignore"):
        x, failed = bicgstab(operator, b, rtol=accuracy, atol=0.0, maxiter=longest, M=inverse)
    return x, not failed and bool(np.isfinite(x).all())


def factorised(kernel: Kernel | Table, b: np.ndarray, work: Work) -> np.ndarray:
    work.passes += 1
    try:
        return kernel.factors.solve(b)
    except RuntimeError:  # exactly singular
        return np.full(kernel.size, np.nan)
