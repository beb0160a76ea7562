"""The peers: their models made from ours, and their best methods run to their own tolerances.

Building a model is not counted, and neither is a first call that compiles. What is not installed, does not run or
would not fit gives a row that says so. All of this is hard control: none of these solvers has a temperature.
"""

import importlib
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

import nearopt as no
from benchmarks.harness import Row

DENSE = 2**30  # bytes of dense tables above which a peer that needs them is not run
MANY = 10**7  # sweeps that no solver here needs: a peer's own limit must not end its work early


class Answer(NamedTuple):
    """What a peer returned, and what it took."""

    value: np.ndarray
    seconds: float
    iterations: int | None


class Tables(NamedTuple):
    """A model as the peers want it: p(s'|s,a) sparse, (S·A, S), and r(s,a) as (S, A), all actions in all states."""

    transition: scipy.sparse.csr_matrix
    reward: np.ndarray
    discount: float


def tables(mdp: no.MDP) -> Tables:
    """A terminal state has no actions here and all of them there: they stay, for nothing."""
    states, actions = mdp.num_states, mdp.num_actions
    if not mdp.available[~mdp.terminal].all():
        raise ValueError("the peers' models are made with every action in every state")
    transition = mdp.transition
    if mdp.terminal.any():
        state = np.flatnonzero(mdp.terminal)
        row = (state[:, None] * actions + np.arange(actions)).reshape(-1)
        stay = (np.ones(len(row)), (row, np.repeat(state, actions)))
        transition = transition + scipy.sparse.csr_array(stay, shape=transition.shape)
    parts = (transition.data, transition.indices.astype(np.int32), transition.indptr.astype(np.int32))
    reward = mdp.branch_table(mdp.probability * mdp.branch_reward).sum(axis=1)
    return Tables(scipy.sparse.csr_matrix(parts, transition.shape), reward.reshape(states, actions), mdp.discount)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """A result and the seconds that it took."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


# ---------------------------------------------------------------- QuantEcon
def quantecon_model(model: Tables) -> Any:
    states, actions = model.reward.shape
    pairs = np.repeat(np.arange(states), actions), np.tile(np.arange(actions), states)
    markov = importlib.import_module("quantecon.markov")
    return markov.DiscreteDP(model.reward.reshape(-1), model.transition, model.discount, *pairs)


def quantecon_sweep(model: Tables) -> Callable[[np.ndarray], np.ndarray]:
    """One hard Bellman sweep, into an array of its own."""
    peer, out = quantecon_model(model), np.empty(len(model.reward))
    return lambda value: peer.bellman_operator(value, Tv=out)


def quantecon(model: Tables, tol: float) -> Answer:
    """Modified policy iteration; its policy iteration factorises, a thousand times slower on these problems."""
    peer = quantecon_model(model)
    work = lambda: peer.solve(method="modified_policy_iteration", epsilon=tol, max_iter=MANY)
    work()  # compiles
    result, seconds = timed(work)
    return Answer(result.v, seconds, result.num_iter)


# ---------------------------------------------------------------- mdpsolver
def mdpsolver(model: Tables, tol: float) -> Answer:
    """Modified policy iteration, its default, on one core or on all, whichever is faster."""
    states, actions = model.reward.shape
    nested: dict[str, list] = {}
    for name, entries in (("tranMatProbs", model.transition.data), ("tranMatColumns", model.transition.indices)):
        rows = [row.tolist() for row in np.split(entries, model.transition.indptr[1:-1])]
        nested[name] = [rows[s * actions : (s + 1) * actions] for s in range(states)]

    def run(parallel: bool) -> Answer:
        peer = importlib.import_module("mdpsolver").model()  # a new one: a second run would start from the answer
        peer.mdp(discount=model.discount, rewards=model.reward.tolist(), **nested)
        _, seconds = timed(lambda: peer.solve(algorithm="mpi", tolerance=tol, parallel=parallel))
        return Answer(np.array(peer.getValueVector()), seconds, None)

    return min(run(True), run(False), key=lambda answer: answer.seconds)


# ---------------------------------------------------------------- pymdptoolbox
def pymdptoolbox(model: Tables, tol: float) -> Answer:
    """Policy iteration where its dense evaluation fits, value iteration where not.

    The constructor counts, for it bounds the number of iterations. The value iteration stops on the span of the change
    and leaves a constant out of its values: the policy is what it vouches for.
    """
    states, actions = model.reward.shape
    solvers = importlib.import_module("mdptoolbox.mdp")
    arguments = [model.transition[a::actions] for a in range(actions)], model.reward, model.discount
    dense = 8 * states**2 <= DENSE // 16

    def run() -> Any:
        peer = solvers.PolicyIteration(*arguments) if dense else solvers.ValueIteration(*arguments, epsilon=tol)
        peer.run()
        return peer

    peer, seconds = timed(run)
    return Answer(np.array(peer.V), seconds, peer.iter)


# ---------------------------------------------------------------- jaxdp
def jaxdp(model: Tables, tol: float) -> Answer:
    """Policy iteration on dense tables, in float64, until the policy stays; `tol` has no say."""
    states, actions = model.reward.shape
    needed = 2 * 8 * actions * states**2
    if needed > DENSE:
        raise MemoryError(f"its dense tables would take {needed / 2**30:.1f} GiB")
    module, planning = importlib.import_module("jaxdp.mdp"), importlib.import_module("jaxdp.planning")
    with jax.enable_x64(True):
        transition = jnp.asarray(model.transition.toarray().reshape(states, actions, states)).transpose(1, 2, 0)
        reward = jnp.broadcast_to(model.reward.T[:, :, None], transition.shape)
        peer = module.MDP(
            transition=transition, reward=reward, initial=jnp.ones(states) / states, terminal=jnp.zeros(states)
        )
        planner = planning.PolicyIteration(gamma=model.discount)

        def work() -> tuple[jax.Array, int]:
            state, before, count = planner.init(peer, jnp.zeros((actions, states)).at[0].set(1.0)), None, 0
            while before is None or not jnp.array_equal(before.policy, state.policy):
                before, state, count = state, planner.update(peer, state), count + 1
            return jax.block_until_ready(state.v_val), count

        work()  # compiles
        (value, iterations), seconds = timed(work)
    return Answer(np.asarray(value), seconds, iterations)


SOLVERS = {"QuantEcon": quantecon, "mdpsolver": mdpsolver, "pymdptoolbox": pymdptoolbox, "jaxdp": jaxdp}


def solved(name: str, problem: str, model: Tables, tol: float, truth: np.ndarray) -> Row:
    """One peer's row: its seconds, and its distance from a certified value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            answer = SOLVERS[name](model, tol)
        except Exception as error:  # whatever ails a peer, the table goes on
            return Row(f"{problem}: {name}", float("nan"), note=f"not run: {error}")
    count = "" if answer.iterations is None else f", {answer.iterations:,} iterations"
    return Row(f"{problem}: {name}", answer.seconds, note=f"error {np.abs(answer.value - truth).max():.1e}{count}")
