"""Soft Q-learning's gradient against the policy's and the value's; and mistakes, planted one at a time, that show.

The oracles: NumPy's closed forms for tables, finite differences of the objectives as textbooks have them, the losses of
the agents, and `solve`.
"""

import itertools
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import nearopt as no
from nearopt.agents import discrete_sac, equivalence, pcl, policies, soft_dqn, soft_pg
from nearopt.agents.distributions import tilted
from nearopt.agents.equivalence import Experience, Steps, difference, residual, targets, terms, tied
from nearopt.agents.errors import SettingError
from nearopt.agents.networks import MLP
from nearopt.agents.replay import Batch
from nearopt.agents.task import Task

N, STATES, SIZE, BATCH = 4, 6, 3, 50
PRIORS = {
    "flat": np.zeros(N),
    "uniform": np.full(N, -np.log(N)),
    "row": np.log([0.1, 0.2, 0.3, 0.4]),
    "forbids": np.array([np.log(0.5), np.log(0.3), np.log(0.2), -np.inf]),
}
MODELS = ("tables", "one network", "two networks", "q network")
ROUNDING = 1e-10


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


# ---------------------------------------------------------------- models and experience
def make(name, log_prior, temperature):
    """A model, parameters, and the observations of all states."""
    rng, keys = np.random.default_rng(0), jax.random.split(jax.random.key(0))
    network = lambda key, outputs: jax.tree.map(lambda x: x.astype(float), MLP.init(SIZE, (8, 8), outputs, "tanh", key))
    seen = np.arange(STATES) if name == "tables" else rng.normal(size=(STATES, SIZE))
    if name == "tables":
        theta = dict(value=jnp.asarray(rng.normal(size=STATES)), logits=jnp.asarray(rng.normal(size=(STATES, N))))
        return (lambda theta, s: tied(theta["value"][s], theta["logits"][s], log_prior)), theta, seen
    if name == "one network":
        model = lambda theta, x: tied(theta(x)[:, 0], theta(x)[:, 1:], log_prior)
        return model, network(keys[0], N + 1), seen
    if name == "two networks":
        model = lambda theta, x: tied(theta[0](x)[:, 0], theta[1](x), log_prior)
        return model, (network(keys[0], 1), network(keys[1], N)), seen
    settings = SimpleNamespace(prior=lambda x: jnp.asarray(log_prior), task=SimpleNamespace(num_actions=N))
    return (lambda theta, x: soft_dqn.policy(settings, theta, temperature, x)), network(keys[0], N), seen


def world(seed=0):
    """p(s'|s,a), r(s,a), where it ends: random."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(STATES), (STATES, N)), rng.normal(size=(STATES, N)), rng.random((STATES, N)) < 0.3


def draws(rng, probability):
    return (np.cumsum(probability, axis=1) > rng.random((len(probability), 1))).argmax(axis=1)


def on_policy(model, theta, seen, following="taken", temperature=0.3, lag=0.0):
    """A batch that π itself made in a random world; with actions, and without: y of every action by r + γ E V."""
    rng, (transition, reward, ends) = np.random.default_rng(1), world()
    older = jax.tree.map(lambda x: (1 - lag) * x, theta)
    state = rng.integers(STATES, size=BATCH)
    action = draws(rng, np.asarray(model(theta, seen).probability)[state])
    after = draws(rng, transition[state, action])
    acting = model(theta, seen[after])
    steps = Steps(reward[state, action], ends[state, action], draws(rng, np.asarray(acting.probability)))
    y = targets(following, steps, model(older, seen[after]), acting, temperature, 0.9)
    every = reward + 0.9 * (1 - ends) * (transition @ np.asarray(model(older, seen).value))
    return Experience(seen[state], y, action), Experience(seen[state], every[state])


# ---------------------------------------------------------------- the identity
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("temperature", [0.01, 1.0, 5.0])
def test_the_two_gradients_are_one(float64, name, prior, temperature):
    model, theta, seen = make(name, PRIORS[prior], temperature)
    for experience in on_policy(model, theta, seen, temperature=temperature):
        parts = terms(model, theta, experience, temperature)
        assert difference(parts, temperature) < ROUNDING
        assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(parts.soft_q)) > 1e-3
        assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(parts.policy)) > 1e-6  # where π is all but sure


@pytest.mark.parametrize("following", ["softmax", "taken"])
@pytest.mark.parametrize("lag", [0.0, 0.5])
def test_it_holds_whatever_follows(float64, following, lag):
    model, theta, seen = make("one network", PRIORS["row"], 0.3)
    experience, _ = on_policy(model, theta, seen, following, lag=lag)
    assert difference(terms(model, theta, experience, 0.3), 0.3) < ROUNDING


def test_it_holds_compiled_and_for_a_temperature_that_is_traced(float64):
    model, theta, seen = make("one network", PRIORS["row"], 0.3)
    experience, _ = on_policy(model, theta, seen)
    parts = eqx.filter_jit(lambda tau: terms(model, theta, experience, tau))(jnp.asarray(0.3))
    assert difference(parts, 0.3) < ROUNDING


def test_precision_is_the_callers():
    model, theta, seen = make("tables", PRIORS["row"].astype(np.float32), 0.3)
    parts = terms(model, theta, on_policy(model, theta, seen)[0], 0.3)
    assert not jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
    assert parts.value["value"].dtype == np.float32 and 0 < difference(parts, 0.3) < 1e-5


# ---------------------------------------------------------------- each term against an oracle
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("exact", [False, True])
def test_tables_have_a_closed_form(float64, prior, exact):
    tau, (model, theta, seen) = 0.3, make("tables", PRIORS[prior], 0.3)
    experience = on_policy(model, theta, seen, temperature=tau)[exact]
    want = [dict(value=np.zeros(STATES), logits=np.zeros((STATES, N))) for _ in range(3)]
    for b, s in enumerate(experience.observation):
        value, logits = np.asarray(theta["value"])[s], np.asarray(theta["logits"])[s]
        mass = np.exp(PRIORS[prior] + logits)
        policy, ratio = mass / mass.sum(), logits - np.log(mass.sum())
        chosen = policy if exact else np.eye(N)[experience.action[b]]
        y = np.asarray(experience.target)[b]
        gap, score = value + tau * ratio - y, np.eye(N) - policy  # score[a] = ∇log π(a) over logits
        want[0]["value"][s] += chosen @ gap / BATCH
        want[0]["logits"][s] += tau * (chosen * gap) @ score / BATCH
        slope = policy * (ratio - policy @ ratio)  # ∇KL
        climb = (chosen * (y - value)) @ score - tau * slope if exact else -(chosen * gap) @ score
        want[1]["logits"][s] += climb / BATCH
        want[2]["value"][s] += (value - (chosen @ (y - tau * ratio))) / BATCH
    for part, oracle in zip(terms(model, theta, experience, tau), want, strict=True):
        for key in oracle:
            np.testing.assert_allclose(part[key], oracle[key], atol=1e-13, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_finite_differences_of_the_textbooks_objectives(float64, name):
    tau, step = 0.7, 1e-5
    model, theta, seen = make(name, PRIORS["row"], tau)
    experience = on_policy(model, theta, seen, temperature=tau)[1]
    y, flat = np.asarray(experience.target), ravel_pytree(theta)
    now = jax.tree.map(np.asarray, model(theta, experience.observation))
    earned = (now.probability * (y - tau * now.log_ratio)).sum(axis=1)

    def objectives(vector):
        row = jax.tree.map(np.asarray, model(flat[1](vector), experience.observation))
        q = row.value[:, None] + tau * row.log_ratio
        returns = (row.probability * (y - tau * row.log_ratio)).sum(axis=1)  # Σ π y − τ KL, with no baseline
        squares = [0.5 * (now.probability * (q - y) ** 2).sum(axis=1), 0.5 * (row.value - earned) ** 2]
        return np.array([squares[0].mean(), returns.mean(), squares[1].mean()])

    slopes = [ravel_pytree(part)[0] for part in terms(model, theta, experience, tau)]
    for direction in np.random.default_rng(2).normal(size=(5, flat[0].size)):
        want = (objectives(flat[0] + step * direction) - objectives(flat[0] - step * direction)) / (2 * step)
        np.testing.assert_allclose([slope @ direction for slope in slopes], want, atol=1e-8, rtol=1e-7)


def test_the_agents_losses_are_these(float64):
    """Soft Q-learning's of `soft_dqn`, and downhill the policy gradient of `discrete_sac`."""
    tau, (model, theta, seen) = 0.3, make("q network", PRIORS["row"], 0.3)
    sampled, exact = on_policy(model, theta, seen, temperature=tau)
    batch = SimpleNamespace(observation=sampled.observation, action=sampled.action)
    want = jax.grad(soft_dqn.critic_loss)(theta, batch, sampled.target)
    for part, leaf in zip(*map(jax.tree.leaves, (terms(model, theta, sampled, tau).soft_q, want)), strict=True):
        np.testing.assert_allclose(part, leaf, atol=1e-13)

    actor = lambda theta, x: tilted(theta(x), jnp.broadcast_to(PRIORS["row"], (len(x), N)), 1.0)
    loss = lambda theta: -discrete_sac.expected(actor(theta, exact.observation), exact.target, tau).mean()
    got = equivalence.policy_gradient(actor, theta, exact, tau)
    for part, leaf in zip(*map(jax.tree.leaves, (got, jax.grad(loss)(theta))), strict=True):
        np.testing.assert_allclose(part, -leaf, atol=1e-13)


def test_the_gradients_of_pcl_and_soft_pg_are_these(float64):
    """The losses of PCL and SoftPG, every action weighted by π: one is −τ times the other's actor, plus its critic."""
    tau, random = 0.3, lambda *shape, seed=0: jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape))
    task, key = Task(4, num_actions=N), jax.random.key(3)
    settings = pcl.Settings(task, n_steps=1, gradient="first", ent_coef=tau, gamma=0.9, net_arch=(16,))
    on_policy = soft_pg.Settings(task, ent_coef=tau, gamma=0.9, gae_lambda=0.0, net_arch=(16,))
    widen = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, tree)
    pair = widen(pcl.init(settings, key).pair)
    state = widen(soft_pg.init(on_policy, key))
    state = state.__class__(**vars(state) | dict(actor=pair.actor, critic=pair.critic))
    seen, after = random(BATCH, 4), random(BATCH, 4, seed=1)
    reward, over = random(BATCH, seed=2), jnp.asarray(np.arange(BATCH) % 5 == 0, float)

    sides, still = [], pair
    for action in range(N):
        done = jnp.full(BATCH, action, jnp.int32)
        batch = Batch(seen, done, reward + action, after, over, None, jnp.zeros(BATCH, jnp.int32))
        share = jnp.exp(policies.log_ratio(settings, pair.actor, seen, done))
        rows = soft_pg.lesson(on_policy, state, batch, key)

        def soft_q(pair, batch=batch, share=share):
            return 0.5 * (share * pcl.residual(settings, pair, still, jnp.float64(tau), batch) ** 2).mean()

        def actor(pair, rows=rows, share=share):
            new = jnp.exp(policies.log_ratio(on_policy, pair.actor, rows.observation, rows.action) - rows.log_ratio)
            return -(share * new * rows.advantage).mean()

        def critic(pair, rows=rows, share=share):
            return 0.5 * (share * (pair.critic(rows.observation)[:, 0] - rows.value) ** 2).mean()

        one = jax.grad(soft_q)(pair)
        other = jax.tree.map(lambda a, v: tau * a + v, jax.grad(actor)(pair), jax.grad(critic)(pair))
        sides.append((one, other))
    whole = lambda side: jax.tree.map(lambda *leaves: sum(leaves), *[both[side] for both in sides])
    cost = jax.grad(lambda pair: policies.divergence(on_policy, pair.actor, seen, key).mean())(pair)
    right = jax.tree.map(lambda rest, kl: rest + tau**2 * kl, whole(1), cost)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=ROUNDING), whole(0), right)
    assert float(jnp.abs(whole(0).actor.layers[0].weight).max()) > 1e-3


# ---------------------------------------------------------------- mistakes
def entropy_as_a_bonus(row, experience, temperature):
    """The advantage keeps no −τ log π/p, and the divergence has no gradient either: entropy only in later rewards."""
    advantage = jax.lax.stop_gradient(equivalence.spread(experience) - row.value[:, None])
    return (equivalence.weight(row, experience) * row.log_ratio * advantage).sum(axis=1)


def divergence_with_no_temperature(row, experience, temperature):
    return POLICY(row, experience, 1.0)


def policy_without_its_temperature(row, experience, temperature):
    return POLICY(row, experience, temperature) / temperature


def policy_summed(row, experience, temperature):
    return BATCH * POLICY(row, experience, temperature)


def advantage_that_is_differentiated(row, experience, temperature):
    y = equivalence.spread(experience) - temperature * row.log_ratio * (experience.action is not None)
    score = equivalence.weight(row, experience) * row.log_ratio
    kl = (row.probability * row.log_ratio).sum(axis=1) * (experience.action is None)
    return (score * (y - row.value[:, None])).sum(axis=1) - temperature * kl


def value_of_bare_targets(row, experience, temperature):
    """V̂ = E y, without this step's divergence."""
    return VALUE(row, experience, 0.0)


def value_with_no_half(row, experience, temperature):
    return 2 * VALUE(row, experience, temperature)


def value_target_that_moves(row, experience, temperature):
    weight = row.probability if experience.action is None else equivalence.weight(row, experience)
    earned = weight * (equivalence.spread(experience) - temperature * row.log_ratio)
    return 0.5 * (row.value - earned.sum(axis=1)) ** 2


def target_that_moves(row, experience, temperature):
    """y holds γ V(s'), here of the batch's next row, and the gradient goes through it."""
    later = 0.9 * jnp.roll(row.value - jax.lax.stop_gradient(row.value), 1)
    y = equivalence.spread(experience) + later[:, None]
    return SOFT_Q(row, experience._replace(target=y if experience.action is None else y[:, 0]), temperature)


def prior_missing(where):
    """log π in place of log π/p, in one of the three."""
    loss = getattr(equivalence, where)
    return lambda row, *rest: loss(row._replace(log_ratio=row.log_ratio + PRIORS["row"]), *rest)


SOFT_Q, POLICY, VALUE = equivalence.soft_q_loss, equivalence.policy_objective, equivalence.value_loss
MISTAKES = {
    "soft_q_loss": [target_that_moves, prior_missing("soft_q_loss")],
    "policy_objective": [
        *(entropy_as_a_bonus, divergence_with_no_temperature, policy_without_its_temperature, policy_summed),
        *(advantage_that_is_differentiated, prior_missing("policy_objective")),
    ],
    "value_loss": [value_of_bare_targets, value_with_no_half, value_target_that_moves, prior_missing("value_loss")],
}


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", ["tables", "one network"])
@pytest.mark.parametrize(
    ("where", "mistake"),
    [(w, m) for w, all_of in MISTAKES.items() for m in all_of],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_a_mistake_shows(float64, monkeypatch, name, where, mistake, exact):
    tau, (model, theta, seen) = 0.3, make(name, PRIORS["row"], 0.3)
    experience = on_policy(model, theta, seen, temperature=tau)[exact]
    monkeypatch.setattr(equivalence, where, mistake)
    assert difference(terms(model, theta, experience, tau), tau) > 1e-4


# ---------------------------------------------------------------- what follows
def ahead(lag):
    """Steps with every next action, for one next state each: rows of (state, action)."""
    tau, (model, theta, seen) = 0.3, make("one network", PRIORS["row"], 0.3)
    acting = model(theta, np.repeat(seen, N, axis=0))
    older = jax.tree.map(lambda x: (1 - lag) * x, theta)
    action = np.tile(np.arange(N), STATES)
    ends = np.repeat(np.arange(STATES) == 2, N)
    steps = Steps(np.arange(STATES * N) / 7, ends, action)
    lagging = model(older, np.repeat(seen, N, axis=0))
    y = {f: np.asarray(targets(f, steps, lagging, acting, tau, 0.9)) for f in ("softmax", "taken")}
    return y, steps, lagging, acting, tau


def test_a_policy_that_is_the_softmax_makes_both_targets_equal_for_every_action(float64):
    y, *_ = ahead(0.0)
    np.testing.assert_array_equal(y["taken"], y["softmax"])


def test_targets_are_what_the_papers_write(float64):
    """Q̄(s', a') − τ log π/p and τ log Σ p exp(Q̄/τ), from the table of Q̄."""
    y, steps, lagging, acting, tau = ahead(0.5)
    q = np.asarray(lagging.value)[:, None] + tau * np.asarray(lagging.log_ratio)
    softmax = tau * np.log((np.exp(PRIORS["row"]) * np.exp(q / tau)).sum(axis=1))
    taken = (q - tau * (np.log(acting.probability) - PRIORS["row"]))[np.arange(len(q)), steps.next_action]
    going = 0.9 * (1 - steps.terminated)
    np.testing.assert_allclose(y["softmax"], steps.reward + going * softmax, atol=1e-13)
    np.testing.assert_allclose(y["taken"], steps.reward + going * taken, atol=1e-13)
    table = tilted(jnp.asarray(q), jnp.broadcast_to(PRIORS["row"], q.shape), tau)
    np.testing.assert_allclose(targets("taken", steps, table, acting, tau, 0.9), y["taken"], atol=1e-13)


def test_a_table_that_lags_makes_the_action_taken_worth_less_by_the_divergence(float64):
    y, steps, lagging, acting, tau = ahead(0.5)
    gap = ((y["taken"] - y["softmax"]).reshape(STATES, N) * np.asarray(acting.probability)[::N]).sum(axis=1)
    old, new = (np.asarray(row.probability)[::N] for row in (lagging, acting))
    want = -tau * 0.9 * (new * np.log(new / old)).sum(axis=1) * ~steps.terminated[::N]
    np.testing.assert_allclose(gap, want, atol=1e-13)
    assert (gap[~steps.terminated[::N]] < -1e-5).all() and np.abs(y["taken"] - y["softmax"]).max() > 1e-2
    assert gap[steps.terminated[::N]] == 0


def test_wrong_input_is_named(float64):
    y, steps, lagging, acting, tau = ahead(0.0)
    with pytest.raises(SettingError, match="following='soft'"):
        targets("soft", steps, lagging, acting, tau, 0.9)
    model, theta, seen = make("tables", PRIORS["row"], tau)
    with pytest.raises(SettingError, match="without actions"):
        terms(model, theta, Experience(seen, np.zeros(STATES)), tau)


# ---------------------------------------------------------------- path consistency
@pytest.mark.parametrize("text", ["S.#.G\n..#..\n.....", "S...\n.#..\n.#.#\n...G"])
@pytest.mark.parametrize("prior", [None, "uniform"])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_every_path_in_a_maze_is_consistent(float64, text, prior, temperature):
    """Also where no good policy goes. `solve` proves V to 1e-13, and q is its backup: no polishing is needed."""
    mdp = no.MDP.from_grid(text, step_reward=-0.1, goal_reward=1.0, discount=0.9)
    solution = no.solve(mdp, temperature=temperature, prior=prior, tol=1e-13)
    available = np.isfinite(solution.q)
    log_prior = -np.log(np.maximum(available.sum(axis=1), 1)) * (prior is not None)
    follows = mdp.transition.toarray().reshape(mdp.num_states, mdp.num_actions, -1).argmax(axis=2)
    reward, rng, checked = np.asarray(mdp.reward), np.random.default_rng(3), set()
    for _ in range(200):
        state, path = [rng.choice(np.flatnonzero(~mdp.terminal))], []
        while len(path) < 10 and not mdp.terminal[state[-1]]:
            path.append((state[-1], rng.choice(np.flatnonzero(available[state[-1]]))))
            state.append(follows[path[-1]])
            earlier, action = np.array(path).T
            log_ratio = np.log(solution.policy[earlier, action]) - log_prior[earlier]
            gap = residual(solution.value[state], log_ratio, reward[earlier, action], 0.9, temperature)
            assert abs(float(gap)) <= 1e-12
            checked.add(len(path))
    assert checked == set(range(1, 11))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_where_chance_rules_paths_are_consistent_in_the_mean(float64, steps):
    """All paths under actions chosen beforehand, with their probabilities; rewards depend on where a move leads."""
    rng, count, tau = np.random.default_rng(4), 4, 0.5
    transition, reward = rng.dirichlet(np.ones(count), (count, 3)), rng.normal(size=(count, 3, count))
    solution = no.solve(no.MDP.from_arrays(transition, reward, discount=0.9), temperature=tau, tol=1e-13)
    log_policy = np.log(solution.policy)
    for action in itertools.product(range(3), repeat=steps):
        path = np.array(list(itertools.product(range(count), repeat=steps + 1)))
        here, after = path[:, :-1], path[:, 1:]
        gap = residual(solution.value[path], log_policy[here, action], reward[here, action, after], 0.9, tau)
        probability = transition[here, action, after].prod(axis=1)
        mean = np.bincount(path[:, 0], probability * np.asarray(gap))
        np.testing.assert_allclose(mean, 0, atol=1e-12)
        assert np.abs(gap).max() > 0.1


def test_elsewhere_paths_are_not_consistent(float64):
    value, log_ratio, reward = np.array([1.0, 2.0, 3.0]), np.array([-0.5, 0.2]), np.array([0.3, -0.4])
    want = 1.0 - 0.81 * 3.0 - (0.3 + 0.7 * 0.5) - 0.9 * (-0.4 - 0.7 * 0.2)
    np.testing.assert_allclose(residual(value, log_ratio, reward, 0.9, 0.7), want, atol=1e-15)
