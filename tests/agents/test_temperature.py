"""The temperature: what `ent_coef` says, and that tuning ends where the entropy is the target."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from nearopt.agents import discrete_sac, sac, soft_dqn
from nearopt.agents.errors import SettingError
from nearopt.agents.settings import settle
from nearopt.agents.task import Task, box_log_prior
from nearopt.agents.temperature import EntCoef, read_ent_coef, temperature_loss

BOX = Task(1, low=(-0.4, -1.0, 0.0), high=(0.4, 3.0, 1.0))
CHOICES = Task(1, num_actions=5)
LOSSES = pytest.mark.parametrize("loss", ["temperature", "log"])


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("auto", (True, 1.0)),
        ("auto_0.1", (True, 0.1)),
        ("auto_1e-3", (True, 1e-3)),
        (0.2, (False, 0.2)),
        (3, (False, 3.0)),
        (np.float32(0.5), (False, 0.5)),
    ],
)
def test_what_ent_coef_says(said, meant):
    assert read_ent_coef(said) == EntCoef(*meant)


@pytest.mark.parametrize(
    "said",
    ["", "automatic", "0.1", "auto_", "auto0.1", "auto_-1", "auto_0", "auto_inf", "auto_nan", "auto_x"]
    + [0, -0.5, np.inf, np.nan, None, True, (1.0,), "AUTO"],
)
def test_what_is_no_temperature(said):
    with pytest.raises(SettingError, match=r"ent_coef=.* is no temperature; give a number above 0, \"auto\""):
        read_ent_coef(said)


@LOSSES
def test_the_temperature_rises_while_there_is_too_little_entropy(loss):
    slope = jax.grad(temperature_loss)
    for log_temperature in (-3.0, 0.0, 2.0):
        low, right, high = (
            float(slope(jnp.float32(log_temperature), jnp.float32(entropy), 0.5, loss))
            for entropy in ([0.1, 0.3], [0.4, 0.6], [0.5, 1.1])
        )
        scale = 1.0 if loss == "log" else np.exp(log_temperature)
        assert low == pytest.approx(-0.3 * scale) and right == pytest.approx(0, abs=1e-6 * scale)
        assert high == pytest.approx(0.3 * scale)


@LOSSES
def test_the_loss(loss):
    value = float(temperature_loss(jnp.float32(-1.0), jnp.float32([1.0, 2.0]), 0.5, loss))
    assert value == pytest.approx((-1.0 if loss == "log" else np.exp(-1.0)) * (1.5 - 0.5))


@LOSSES
@pytest.mark.parametrize("start", [1e-3, 50.0])
def test_tuning_ends_at_the_target_from_either_side(loss, start):
    """A softmax of fixed rewards has entropy H(τ), and H(τ*) is the target for one τ*; on the way τ stays above 0."""
    reward, target = np.array([0.0, 0.5, 1.0, -0.3]), 1.0

    def entropy(temperature):
        logits = jax.nn.log_softmax(jnp.asarray(reward) / temperature)
        return -(jnp.exp(logits) * logits).sum()

    adam = optax.adam(0.1)

    def step(carry, _):
        log_temperature, moments = carry
        seen = jax.lax.stop_gradient(entropy(jnp.exp(log_temperature)))[None]
        slope = jax.grad(temperature_loss)(log_temperature, seen, target, loss)
        move, moments = adam.update(slope, moments)
        return (log_temperature + move, moments), log_temperature

    begin = jnp.log(jnp.float32(start))
    (end, _), path = jax.jit(lambda x: jax.lax.scan(step, (x, adam.init(x)), length=1_000))(begin)
    exact = scipy.optimize.brentq(lambda temperature: float(entropy(temperature)) - target, 0.1, 10)
    assert np.exp(end) == pytest.approx(exact, rel=1e-3) and np.isfinite(path).all()


# ---------------------------------------------------------------- targets
KL = 3 * np.log(2)  # entropy of the uniform density on [−1, 1]³


@pytest.mark.parametrize(
    ("given", "target"),
    [
        (dict(), -3.0),
        (dict(target_entropy="half"), -1.5),
        (dict(target_entropy=-7), -7.0),
        (dict(prior="uniform"), -3.0 - KL),
        (dict(prior="uniform", target_entropy="half"), -1.5 - KL),
        (dict(prior="uniform", target_entropy=-1.0), -1.0),
    ],
)
def test_targets_of_sac(given, target):
    assert settle(sac.Settings, BOX, given).entropy_target == pytest.approx(target)


def test_the_units_of_the_box_and_a_prior_do_not_move_the_budget():
    """−A nats in the units of the box is one and the same policy, whatever the entropy is measured against."""
    task = Task(2, low=(-0.4, -1.0), high=(0.4, 3.0))
    flat = settle(sac.Settings, task, dict(entropy_units="box"))
    tilted = settle(sac.Settings, task, dict(entropy_units="box", prior="uniform"))
    unit = jnp.zeros((1, 2))
    shift = box_log_prior(None, task, unit, unit, "box") - box_log_prior("uniform", task, unit, unit, "box")
    assert tilted.entropy_target + float(shift[0]) == pytest.approx(flat.entropy_target)


@pytest.mark.parametrize(
    ("kind", "task", "given"),
    [
        (soft_dqn.Settings, "CHOICES", dict(ent_coef="auto", target_entropy=1.7)),
        (discrete_sac.Settings, "CHOICES", dict(prior="uniform", target_entropy=0.1)),
        (discrete_sac.Settings, "CHOICES", dict(prior=[-1.0] * 5, target_entropy=0.7)),
        (sac.Settings, "BOX", dict(target_entropy=2.1)),
        (sac.Settings, "BOX", dict(prior="uniform", target_entropy=0.1)),
    ],
)
def test_a_target_that_no_policy_reaches_is_refused(kind, task, given):
    with pytest.raises(SettingError, match="more than any policy has"):
        settle(kind, globals()[task], given)


@pytest.mark.parametrize("kind", [soft_dqn.Settings, discrete_sac.Settings])
@pytest.mark.parametrize(
    ("given", "target"),
    [
        (dict(), 0.98 * np.log(5)),
        (dict(target_entropy="half"), 0.49 * np.log(5)),
        (dict(target_entropy=0.3), 0.3),
        (dict(prior="uniform"), -0.02 * np.log(5)),
        (dict(prior=[-np.log(5)] * 5), -0.02 * np.log(5)),
        (dict(prior="uniform", target_entropy=-0.3), -0.3),
        (dict(prior=[0.0] * 5), 0.98 * np.log(5)),
        (dict(prior=[2.0] * 5), 0.98 * np.log(5) + 2.0),  # p only scales: so does the greatest entropy there is
        (dict(prior=[-np.inf, 0.0, 0.0, -np.inf, 0.0]), 0.98 * np.log(3)),
    ],
)
def test_targets_over_discrete_actions(kind, given, target):
    assert settle(kind, CHOICES, given).entropy_target == pytest.approx(target)


@pytest.mark.parametrize("kind", [sac.Settings, soft_dqn.Settings, discrete_sac.Settings])
def test_a_number_is_never_tuned(kind):
    task = BOX if kind is sac.Settings else CHOICES
    fixed, tuned = settle(kind, task, dict(ent_coef=0.3)), settle(kind, task, dict(ent_coef="auto_0.3"))
    assert not fixed.tuned and tuned.tuned and fixed.initial_temperature == tuned.initial_temperature == 0.3
