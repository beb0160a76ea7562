"""The model as an environment: it passes Gymnasium's own checker and draws what the model says."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportPossiblyUnboundVariable=false

import copy
import pickle
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy.stats import chisquare

import nearopt as no
from nearopt.mdp.environment import ID, MDPEnv, draw
from nearopt.mdp.errors import ActionRangeError, EpisodeOverError, StateRangeError


def random_model(seed=0, states=7, actions=4):
    """Unavailable actions, two terminal states, rewards on branches."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(states) * 0.5, size=(states, actions))
    available = rng.random((states, actions)) < 0.6
    available[:, 2] = True
    return no.MDP.from_arrays(
        transition,
        rng.normal(size=(states, actions, states)),
        terminal=np.arange(states) >= states - 2,
        available=available,
    )


MODELS = {
    "grid": lambda: no.MDP.from_grid("S..\n.#.\n..G", slip=0.2, goal_reward=3.0),
    "lake": lambda: no.MDP.from_gymnasium("FrozenLake-v1"),
    "taxi": lambda: no.MDP.from_gymnasium("Taxi-v4"),
    "random": random_model,
    "ended": lambda: no.MDP.from_arrays(np.zeros((1, 1, 1)), np.zeros(1), terminal=np.array([True])),
}


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_check_env_has_nothing_to_say(name, one_hot):
    env = MODELS[name]().to_gymnasium(one_hot=one_hot)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)


@pytest.mark.parametrize("name", ["grid", "lake", "random"])
def test_steps_are_as_frequent_as_the_model_says(name):
    mdp = MODELS[name]()
    env, n = mdp.to_gymnasium(), 400
    env.reset(seed=0)
    worst = 1.0
    for s in np.flatnonzero(~mdp.terminal):
        available = np.flatnonzero(mdp.available[s])
        for i, a in enumerate(available):
            c = mdp.choice_offset[s] + i
            b = slice(mdp.branch_offset[c], mdp.branch_offset[c + 1])
            keys = list(zip(mdp.next_state[b].tolist(), mdp.branch_reward[b].tolist(), strict=True))
            counts = dict.fromkeys(keys, 0)
            for _ in range(n):
                env.reset(options={"state": s})
                t, r, terminated, truncated, info = env.step(a)
                assert (terminated, truncated, info["action_taken"]) == (mdp.terminal[t], False, a)
                assert info["action_mask"].dtype == np.int8 and (info["action_mask"] == mdp.available[t]).all()
                counts[t, r] += 1
            worst = min(worst, chisquare(list(counts.values()), n * mdp.probability[b]).pvalue)
    assert worst > 1e-4


def test_first_states_are_as_frequent_as_the_model_says():
    initial = np.array([0.0, 0.2, 0.0, 0.5, 0.3, 0.0, 0.0])
    env = random_model().replace(initial=initial).to_gymnasium()
    env.reset(seed=3)
    counts = np.bincount([env.reset()[0] for _ in range(2000)], minlength=7)
    assert counts[initial == 0].sum() == 0
    assert chisquare(counts[initial > 0], 2000 * initial[initial > 0]).pvalue > 1e-3


def test_an_unavailable_action_becomes_an_available_one_drawn_uniformly():
    mdp = random_model()
    env = mdp.to_gymnasium()
    s = int(np.argmax((mdp.available.sum(1) == 2) | (mdp.available.sum(1) == 3)))
    a = int(np.argmin(mdp.available[s]))
    env.reset(seed=1)
    taken = []
    for _ in range(1000):
        _, info = env.reset(options={"state": s})
        assert info["action_mask"].tolist() == mdp.available[s].astype(int).tolist()
        assert mdp.available[s, env.action_space.sample(info["action_mask"])]
        taken.append(env.step(a)[4]["action_taken"])
    counts = np.bincount(taken, minlength=4)
    assert counts[~mdp.available[s]].sum() == 0
    assert chisquare(counts[mdp.available[s]]).pvalue > 1e-3


def test_returns_agree_with_the_model():
    """The mean return of the uniform policy, against a linear solve."""
    mdp = MODELS["lake"]()
    uniform = mdp.available / np.maximum(mdp.available.sum(1, keepdims=True), 1)
    expected = (mdp.branch_table(mdp.probability * mdp.branch_reward).sum(1)).reshape(mdp.num_states, -1)
    chain = np.einsum("sa,sat->st", uniform, mdp.transition.toarray().reshape(mdp.num_states, -1, mdp.num_states))
    value = np.linalg.solve(np.eye(mdp.num_states) - chain, (uniform * expected).sum(1))
    env, rng, returns = mdp.to_gymnasium(), np.random.default_rng(0), []
    env.reset(seed=0)
    for _ in range(3000):
        env.reset()
        total, over = 0.0, False
        while not over:
            _, reward, over, _, _ = env.step(int(rng.integers(4)))
            total += reward
        returns.append(total)
    assert abs(np.mean(returns) - mdp.initial @ value) < 4 * np.std(returns) / np.sqrt(3000)


def test_one_hot_is_the_same_episode():
    number, vector = random_model().to_gymnasium(), random_model().to_gymnasium(one_hot=True)
    s, _ = number.reset(seed=5)
    x, _ = vector.reset(seed=5)
    over = False
    while not over:
        assert x.dtype == np.float32 and np.flatnonzero(x).tolist() == [s] and x.sum() == 1
        (s, r, over, _, _), (x, r2, over2, _, _) = number.step(2), vector.step(2)
        assert (r, over) == (r2, over2)
    assert isinstance(s, int) and isinstance(r, float) and isinstance(over, bool)


def test_steps_need_an_episode():
    env = no.MDP.from_grid("SG").to_gymnasium()
    with pytest.raises(EpisodeOverError, match="before the first reset"):
        env.step(0)
    env.reset(seed=0)
    assert env.step(1)[:4] == (1, -1.0, True, False)
    with pytest.raises(EpisodeOverError, match="after the end in state 1"):
        env.step(0)
    env.reset()
    env.step(0)


def test_an_episode_that_starts_at_its_end_pays_nothing():
    mdp = no.MDP.from_grid("S.G").replace(initial=[0.0, 0.0, 1.0])
    env = mdp.to_gymnasium()
    state, info = env.reset(seed=0)
    assert state == 2 and not info["action_mask"].any()
    state, reward, terminated, truncated, info = env.step(1)
    assert (state, reward, terminated, truncated, info["action_taken"]) == (2, 0.0, True, False, -1)
    with pytest.raises(EpisodeOverError):
        env.step(1)


@pytest.mark.parametrize("action", [4, -1, 1.5, "up", None, np.array([1])])
def test_actions_out_of_range(action):
    env = no.MDP.from_grid("SG").to_gymnasium()
    env.reset(seed=0)
    with pytest.raises(ActionRangeError):
        env.step(action)
    with pytest.raises(StateRangeError):
        env.reset(options={"state": action if action is not None else 2})


@pytest.mark.parametrize("action", [np.int64(1), np.int8(1), np.array(1), True])
def test_any_whole_number_is_an_action(action):
    env = no.MDP.from_grid("SG").to_gymnasium()
    env.reset(seed=0)
    assert env.step(action)[0] == 1


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_go_on_exactly(duplicate):
    env = random_model().to_gymnasium()
    env.reset(seed=9)
    env.step(0)
    other = duplicate(env)
    for a in (0, 1, 2, 3) * 5:
        if env.over:
            assert env.reset()[0] == other.reset()[0]
        first, second = env.step(a), other.step(a)
        assert first[:4] == second[:4] and first[4]["action_taken"] == second[4]["action_taken"]


def test_vector_environments():
    mdp = MODELS["grid"]()
    spec = mdp.to_gymnasium().spec
    for source, kwargs in ((ID, {"mdp": mdp}), (spec, {}), (spec, {"one_hot": True})):
        envs = gymnasium.make_vec(source, num_envs=3, vectorization_mode="sync", **kwargs)
        observations, info = envs.reset(seed=0)
        assert len(observations) == 3 and info["action_mask"].shape == (3, 4)
        for _ in range(100):
            _, rewards, _, _, info = envs.step(envs.action_space.sample())
        assert rewards.shape == (3,)
        assert all(env.unwrapped.mdp is mdp for env in envs.envs)  # shared, not copied
        envs.close()


def test_making_it_by_its_id():
    mdp = MODELS["grid"]()
    env = gymnasium.make(f"nearopt.mdp.environment:{ID}", mdp=mdp, max_episode_steps=2)
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(2)] == [False, True]
    assert isinstance(env.unwrapped, MDPEnv)


def test_rendering():
    env = gymnasium.make(ID, mdp=no.MDP.from_grid("SG"), render_mode="ansi")
    assert env.render() == "not begun\n"
    env.reset(seed=0)
    assert env.render() == "state 0\n"
    env.step(1)
    assert env.render() == "state 0, action 1 ('right'): reward -1 → state 1, the end\n"
    assert no.MDP.from_grid("SG").to_gymnasium().render() is None


def test_drawing_never_hits_a_step_of_zero():
    class One:
        def random(self):
            return np.nextafter(1.0, 0.0)

    class Zero:
        def random(self):
            return 0.0

    assert draw(np.array([0.3, 0.3, 0.9999999]), One()) == 2
    assert draw(np.array([0.0, 0.5, 1.0]), Zero()) == 1


def test_nothing_is_imported_before_it_is_needed():
    code = (
        "import sys, gymnasium; assert 'nearopt' not in sys.modules; "
        "assert not any('nearopt' in i for i in gymnasium.registry)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, nearopt; nearopt.MDP.from_grid('SG'); assert not {'jax', 'gymnasium'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
