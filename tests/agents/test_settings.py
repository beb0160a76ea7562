"""Settings: defaults, what is refused and how it is said, and that JSON brings them back."""

import dataclasses
import json

import numpy as np
import pytest

import nearopt as no
from nearopt.agents import discrete_sac, sac, soft_dqn
from nearopt.agents.errors import SettingError
from nearopt.agents.files import read_settings
from nearopt.agents.settings import settle, to_json
from nearopt.agents.task import Task

BOX = Task(3, low=(-1.0, -2.0), high=(1.0, 2.0))
CHOICES = Task(3, num_actions=4)
KINDS = {sac.Settings: BOX, soft_dqn.Settings: CHOICES, discrete_sac.Settings: CHOICES}
EVERY = pytest.mark.parametrize("kind", KINDS)


def settled(kind, **given):
    return settle(kind, KINDS[kind], given)


# ---------------------------------------------------------------- values
@EVERY
def test_defaults_are_the_papers(kind):
    """Table 1 of arXiv 1812.05905."""
    s = settled(kind)
    found = (s.learning_rate, s.buffer_size, s.batch_size, s.net_arch, s.activation, s.tau, s.gamma, s.gradient_steps)
    assert found == (3e-4, 1_000_000, 256, (256, 256), "relu", 0.005, 0.99, 1)
    assert (
        s.prior is None and s.target_entropy == "auto" and s.ent_coef == (0.1 if kind is soft_dqn.Settings else "auto")
    )


@EVERY
def test_equal_settings_are_one_key(kind):
    """Compiled programs are kept by settings."""
    one = settled(kind, net_arch=[4, 8], gamma=np.float64(0.5), batch_size=np.int64(7), learning_rate=np.float32(0.5))
    two = settled(kind, policy_kwargs=dict(net_arch=(4, 8)), gamma=0.5, batch_size=7, learning_rate=0.5)
    assert one == two and hash(one) == hash(two) and one != settled(kind)
    assert type(one.batch_size) is int and type(one.gamma) is float and one.net_arch == (4, 8)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.gamma = 0.3


def test_policy_kwargs_are_taken_apart():
    s = settled(sac.Settings, policy_kwargs=dict(net_arch=np.array([3]), activation_fn="tanh"))
    assert s.net_arch == (3,) and s.activation == "tanh"
    assert settled(sac.Settings, policy_kwargs=None) == settled(sac.Settings, policy_kwargs={}) == settled(sac.Settings)


def test_priors_are_values():
    assert settled(soft_dqn.Settings, prior="flat").prior is None
    row = np.array([0.0, -np.inf, -1.0, -2.0])
    s = settled(soft_dqn.Settings, prior=row)
    assert s.prior == (0.0, -np.inf, -1.0, -2.0) and s == settled(soft_dqn.Settings, prior=list(row))
    function = lambda observation: observation
    assert settled(soft_dqn.Settings, prior=function).prior is function


@pytest.mark.parametrize("preset", sac.PRESETS)
def test_presets_are_settings(preset):
    s = settle(sac.Settings, BOX, no.SAC.preset(preset))
    assert s != settled(sac.Settings) and all(getattr(s, name) == value for name, value in sac.PRESETS[preset].items())
    no.SAC.preset(preset)["gamma"] = 0.0  # a copy
    assert "gamma" not in sac.PRESETS[preset]


# ---------------------------------------------------------------- refusals
WRONG = {
    "learning_rate": [0, -1.0, np.inf, np.nan, "fast", None, True, [1e-3]],
    "buffer_size": [0, -1, 2.5, 1e6, True, "all"],
    "learning_starts": [-1, 0.5, 2.0, None],
    "batch_size": [0, 1.5, True, None],
    "tau": [0, -0.1, 1.1, np.nan, "slow"],
    "gamma": [-0.1, 1.01, np.nan, "1", None],
    "train_freq": [0, (1, "episode"), 0.5],
    "gradient_steps": [0, -2, 1.5],
    "ent_coef": [0, -1.0, "none", None],
    "target_entropy": ["auto_1", None, np.nan, np.inf, -np.inf, True, [1.0]],
    "net_arch": [64, [0], [8, -1], [8.0], "64", None, dict(pi=[8], qf=[8])],
    "activation": ["relux", None, ["relu"]],
}
WRONG_OF_SAC = {
    "critic_learning_rate": [-1.0, np.nan, "x"],
    "actor_learning_rate": [-1.0, np.inf],
    "temperature_learning_rate": [-1e-3, None],
    "actor_q": ["max", None, ["min"]],
    "log_std": ["exp", 3],
    "log_std_range": [(2.0, -5.0), (1.0, 1.0), (1.0,), (1.0, 2.0, 3.0), 3.0, None, (0.0, np.nan)]
    + [("a", "b"), "ab", (-np.inf, 2.0)],
    "temperature_loss": ["alpha", None],
    "temperature_sample": ["old"],
    "entropy_units": ["nats"],
    "update_order": ["random"],
    "policy_delay": [0, 1.5],
    "prior": ["gauss", 3, [0.0, 0.0], np.zeros(2)],
}
WRONG_OF_SOFT_DQN = {
    "double": [1, "yes", None],
    "n_steps": [0, 1.5, True],
    "prior": ["gauss", 3, [0.0], [0.0] * 5, [np.nan] * 4, [np.inf, 0.0, 0.0, 0.0], [-np.inf] * 4, [[0.0] * 4] * 2]
    + [["a", "b", "c", "d"], {"a": 1}],
}


CASES = [
    (kind, name, value)
    for kind, table in (
        (soft_dqn.Settings, WRONG),
        (sac.Settings, WRONG_OF_SAC),
        (soft_dqn.Settings, WRONG_OF_SOFT_DQN),
    )
    for name, values in table.items()
    for value in values
]


@pytest.mark.parametrize(("kind", "name", "value"), CASES)
def test_wrong_values_are_named_with_their_setting(kind, name, value):
    with pytest.raises(SettingError) as told:
        settled(kind, **{name: value})
    said = str(told.value)
    assert said.startswith(f"{name}=") and said.endswith(".") and "\n" not in said
    assert isinstance(told.value, no.NearoptError)


def test_names_that_do_not_exist():
    for given, said in (
        (dict(learning_rat=1), "there is no setting 'learning_rat'; did you mean 'learning_rate'"),
        (dict(n_steps=3), "there is no setting 'n_steps'"),
        (dict(task=BOX), "there is no setting 'task'; there are learning_rate, gamma,"),
        (dict(policy_kwargs=dict(log_std_init=-3)), "policy_kwargs has no 'log_std_init'"),
        (dict(policy_kwargs=[256]), r"policy_kwargs=\[256\] is no dictionary"),
    ):
        with pytest.raises(SettingError, match=said):
            settled(discrete_sac.Settings, **given)


def test_a_batch_fits_into_the_buffer():
    with pytest.raises(SettingError, match="batch_size=256 is more than buffer_size=255"):
        settled(sac.Settings, buffer_size=255)
    assert settled(sac.Settings, buffer_size=256).batch_size == 256


# ---------------------------------------------------------------- JSON
@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (sac.Settings, dict()),
        (sac.Settings, sac.PRESETS["cleanrl"] | dict(net_arch=[4], ent_coef="auto_0.1", target_entropy=-3.5)),
        (sac.Settings, dict(prior="uniform", log_std_range=[-3, 1], gamma=0, tau=1)),
        (soft_dqn.Settings, dict(prior=[0.0, -np.inf, -1.0, 0.1], double=True, n_steps=3, gradient_steps=-1)),
        (discrete_sac.Settings, dict(target_entropy="half", learning_starts=0, net_arch=[])),
    ],
)
def test_json_brings_settings_back(kind, given):
    s = settled(kind, **given)
    text = json.dumps(to_json(s), allow_nan=False)
    assert settled(kind, **read_settings(json.loads(text), None)) == s


def test_a_function_is_named_and_given_again():
    prior = lambda observation: observation
    rows = json.loads(json.dumps(to_json(settled(soft_dqn.Settings, prior=prior))))
    assert rows["prior"] == "function"
    assert settled(soft_dqn.Settings, **read_settings(rows, prior)).prior is prior
