"""What a user may get wrong when asking for inference: each has its own type, names the value and offers a mend."""

import numpy as np
import pytest

import nearopt as no
from nearopt.mdp import errors

LOOP = no.MDP.from_arrays(np.ones((1, 2, 1)), np.zeros((1, 2)), state_names=["home"], action_names=["go", "stay"])
GRID = no.MDP.from_grid("S.G")
HALF = no.MDP.from_arrays(np.array([[[1.0], [0.0]]]), np.zeros(1))
SQUARE = no.MDP.from_arrays(np.ones((2, 2, 2)) / 2, np.zeros(2))
NAN = float("nan")


def dials(mdp=LOOP, horizon=3, **arguments):
    return lambda: no.infer(mdp, horizon, **arguments)


def recorded(state, action, mdp=GRID, horizon=3):
    return lambda: no.infer(mdp, horizon).log_prob(no.Trajectories.from_arrays(state, action))


MISTAKES = [
    ("no model", dials(np.eye(2)), errors.NotAModelError, "ndarray"),
    ("no trajectories", lambda: no.infer(LOOP, 3).log_prob([[0, 1]]), errors.TrajectoryShapeError, "list"),
    ("horizon 0", dials(horizon=0), errors.HorizonError, "0"),
    ("horizon below 0", dials(horizon=-3), errors.HorizonError, "-3"),
    ("horizon a fraction", dials(horizon=2.5), errors.HorizonError, "2.5"),
    ("horizon a truth", dials(horizon=True), errors.HorizonError, "True"),
    ("temperature below 0", dials(temperature=-1), errors.TemperatureError, "-1"),
    ("temperature NaN", dials(temperature=NAN), errors.TemperatureError, "nan"),
    ("temperature infinite", dials(temperature=np.inf), errors.TemperatureError, "inf"),
    ("temperature a word", dials(temperature="hot"), errors.TemperatureError, "hot"),
    ("hard but optimistic", dials(temperature=0), errors.OptimismError, "0"),
    ("optimism NaN", dials(optimism=NAN), errors.OptimismError, "nan"),
    ("optimism a word", dials(optimism="rosy"), errors.OptimismError, "rosy"),
    ("prior of an unknown name", dials(prior="even"), errors.PriorShapeError, "even"),
    ("prior of a wrong shape", dials(prior=np.ones((2, 2))), errors.PriorShapeError, "(2, 2)"),
    ("prior negative", dials(prior=np.array([[1.5, -0.5]])), errors.NegativePriorError, "-0.5"),
    ("prior NaN", dials(prior=np.array([[1.0, NAN]])), errors.NegativePriorError, "nan"),
    ("prior infinite", dials(prior=np.array([[1.0, np.inf]])), errors.NegativePriorError, "inf"),
    ("prior on nothing", dials(HALF, prior=np.array([[0.5, 0.5]])), errors.PriorUnavailableError, "action 1"),
    ("prior empty", dials(prior=np.zeros((1, 2))), errors.EmptyPriorError, "home"),
    ("prior empty at a step", dials(prior=np.stack([[[1, 1.0]], [[0, 0]], [[1, 1]]])), errors.EmptyPriorError, "step 1"),
    ("prior of words", dials(prior=np.array([["a", "b"]])), errors.NotNumericError, "prior"),
    ("final value of a wrong shape", dials(final_value=np.zeros(2)), errors.FinalValueError, "(2,)"),
    ("final value +inf", dials(final_value=np.array([np.inf])), errors.FinalValueError, "inf"),
    ("final value NaN", dials(final_value=np.array([NAN])), errors.FinalValueError, "nan"),
    ("reward +inf", dials(reward=np.array([[np.inf, 0]])), errors.InfiniteRewardError, "inf"),
    ("reward NaN", dials(reward=np.array([[NAN, 0]])), errors.NaNError, "[0, 0]"),
    ("reward of a wrong shape", dials(reward=np.zeros((4, 4))), errors.AmbiguousRewardError, "(4, 4)"),
    ("reward read two ways", dials(SQUARE, 2, reward=np.zeros((2, 2, 2))), errors.AmbiguousRewardError, "(2, 2, 2)"),
    ("step outside the horizon", lambda: no.infer(LOOP, 3).transition(3), errors.TimeError, "3"),
    ("step below 0", lambda: no.infer(LOOP, 3).policy_at(-1), errors.TimeError, "-1"),
    ("ELBO of another problem", lambda: no.infer(LOOP, 3).elbo, errors.OptimismError, "1"),
    ("no samples", lambda: no.infer(LOOP, 3).sample(0, seed=1), errors.SampleSizeError, "0"),
    ("seed below 0", lambda: no.infer(LOOP, 3).sample(2, seed=-1), errors.SampleSizeError, "-1"),
    ("nothing succeeds", lambda: no.infer(LOOP, 3, reward=np.full((1, 2), -np.inf)).sample(1, 0),
     errors.ImpossibleEvidenceError, "3 steps"),
    ("unknown state", recorded([[7, 1]], [[1]]), errors.StateRangeError, "7"),
    ("state below -1", recorded([[0, -4]], [[1]]), errors.StateRangeError, "-4"),
    ("unknown action", recorded([[0, 1]], [[9]]), errors.ActionRangeError, "9"),
    ("trajectory too long", recorded([[0] * 5], [[3] * 4]), errors.TrajectoryLengthError, "4"),
    ("stops in the open", recorded([[0, 1]], [[1]]), errors.TrajectoryEndError, "state 1"),
    ("stops before the open", recorded([[0]], [[3]]), errors.TrajectoryEndError, "action 3"),
    ("rows that do not match", lambda: no.Trajectories.from_arrays([[0, 1]], [[1], [1]]), errors.TrajectoryShapeError, "2"),
    ("acts after a gap", lambda: no.Trajectories.from_arrays([[0, 1, 1]], [[-1, 1]]), errors.TrajectoryShapeError, "step"),
    ("acts in no state", lambda: no.Trajectories.from_arrays([[0, -1, 1]], [[1, 1]]), errors.TrajectoryShapeError, "step 1"),
    ("a gap", lambda: no.infer(GRID, 3).log_prob(no.Trajectories([[0, -1, 2]], [[1, 1]])), errors.GapError, "step 1"),
    ("fractions as states", lambda: no.Trajectories.from_arrays([[0.5, 1]], [[1]]), errors.NotNumericError, "state"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "value"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_mistake(call, error, value):
    with pytest.raises(no.NearoptError) as caught:
        call()
    assert type(caught.value) is error, caught.value
    assert value in caught.value.problem
    assert caught.value.mend and str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_entries_in_terminal_states_do_not_count():
    prior = np.ones((3, 4)) / 4
    prior[2] = np.nan  # the goal
    final = np.array([0.0, 0.0, np.inf])
    post = no.infer(GRID, 3, prior=prior, final_value=final)
    assert np.isfinite(post.value).all() and (post.value[:, 2] == 0).all()


def test_numpy_scalars_are_numbers():
    assert (
        no.infer(LOOP, np.int64(3), temperature=np.float32(0.5)).log_partition
        == no.infer(LOOP, 3, temperature=0.5).log_partition
    )


def test_inputs_are_untouched():
    prior, final, reward = np.ones((1, 2)), np.zeros(1), np.zeros((1, 2))
    before = [x.copy() for x in (prior, final, reward)]
    no.infer(LOOP, 2, prior=prior, final_value=final, reward=reward).state_probs  # noqa: B018
    for x, y in zip((prior, final, reward), before, strict=True):
        np.testing.assert_array_equal(x, y)
