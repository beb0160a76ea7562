"""Taking up a run: by one process at a time, and as exactly as its environment allows."""

import contextlib
import shutil

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

import nearopt as no
from nearopt.agents import session
from nearopt.agents.agent import learn
from nearopt.agents.errors import SettingError
from nearopt.agents.session import resume
from nearopt.runs.directory import RunDirectory
from nearopt.runs.errors import RunExistsError, RunLockedError

SMALL = dict(net_arch=[8], batch_size=4, learning_starts=4)


@pytest.fixture
def stopped(tmp_path):
    """A run of which only the final agent is missing; that agent is beside it."""
    agent = no.SoftDQN("CartPole-v1", seed=0, **SMALL)
    agent.learn(60, run_dir=tmp_path / "run", checkpoint_every=20, log_every=10)
    shutil.move(tmp_path / "run/agent", tmp_path / "agent")
    return tmp_path / "run"


def test_a_run_that_another_process_finishes_meanwhile_is_left_alone(stopped, monkeypatch):
    before = (stopped / "metrics.csv").read_bytes()

    @contextlib.contextmanager
    def late(self):
        """The lock is had once the other process has finished."""
        shutil.copytree(stopped.parent / "agent", self.agent)
        yield

    monkeypatch.setattr(RunDirectory, "lock", late)
    monkeypatch.setattr(session, "Session", None)  # nothing is trained
    (agent,) = resume(stopped)
    assert agent.steps == 60 and (stopped / "metrics.csv").read_bytes() == before


def test_nothing_is_read_before_the_lock_is_had(stopped, monkeypatch):
    monkeypatch.setattr(session, "common", None)
    with RunDirectory.open(stopped).lock(), pytest.raises(RunLockedError):
        resume(stopped)


class Growing(gymnasium.Env):
    """Makes a helper with every reset, with another number of parts each time: at first there is none."""

    class Helper:
        def __init__(self, size):
            self.parts = [object.__new__(Part) for _ in range(size)]

    observation_space, action_space = Box(-1.0, 1.0, (2,)), Discrete(2)

    def __init__(self, forgetful):
        self.forgetful, self.resets, self.kept = forgetful, 0, None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.resets, self.moment = self.resets + 1, 0
        self.kept = Growing.Helper(self.resets) if self.forgetful else None
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.moment += 1
        return np.full(2, self.moment / 9, np.float32), 1.0, self.moment == 7, False, {}


class Part:
    pass


def test_an_environment_whose_state_no_longer_fits_goes_on_with_a_new_episode(tmp_path):
    """What could be captured when the run began cannot be written into an environment made anew."""
    for forgetful in (False, True):
        folder = tmp_path / str(forgetful)
        agent = no.SoftDQN(Growing(forgetful), seed=0, **SMALL)
        agent.learn(60, run_dir=folder, checkpoint_every=25, log_every=20)
        assert RunDirectory.open(folder).config["resume"] == "exact, as far as can be seen"
        shutil.rmtree(folder / "agent")
        with pytest.warns(UserWarning, match="goes on with a new episode") if forgetful else contextlib.nullcontext():
            (again,) = resume(folder, env=Growing(forgetful))
        assert again.steps == 60 and len(again.replay.reward) == 60
        ends = np.flatnonzero(np.diff(again.replay.observation[:, 0]) <= 0)
        want = [6, 13, 20, 27, 34, 41, 48, 55] if not forgetful else [6, 13, 20, 27, 34, 41, 48, 49, 56]
        assert ends.tolist() == want


def test_seeds_that_learned_apart_are_taken_up_one_after_another(tmp_path):
    for number in range(2):
        agent = no.SoftDQN("CartPole-v1", seed=number, **SMALL)
        with session.Session(60, checkpoint_every=20, log_every=20) as ours:
            ours.folder = tmp_path / f"seed-{number}"
            ours.begin([agent])
            learn([agent], ours)
        shutil.rmtree(tmp_path / f"seed-{number}/agent")
    assert [agent.seed for agent in resume(tmp_path)] == [0, 1]
    assert all(run.finished for run in map(RunDirectory.open, tmp_path.iterdir()))


def test_what_cannot_begin_leaves_nothing(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").touch()
    agent = no.SoftDQN("CartPole-v1", seed=0, **SMALL)
    with pytest.raises(RunExistsError):
        agent.learn(9, run_dir=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(SettingError, match="buffer_size=100000000000000 needs"):
        no.SoftDQN("CartPole-v1", buffer_size=10**14).learn(9, run_dir=tmp_path / "large")
    agent.steps = 2**31 - 5
    with pytest.raises(SettingError, match="total_timesteps is 9; give a whole number of at least 1 and at most 4"):
        agent.learn(9, run_dir=tmp_path / "late")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_checkpoints_that_no_list_could_name_are_refused_at_once(tmp_path):
    agent = no.SoftDQN("CartPole-v1", seed=0, **SMALL)
    with pytest.raises(SettingError, match="checkpoint_every=2 cuts the replay buffer into 500,000 files; give at"):
        agent.learn(10**6, run_dir=tmp_path / "run", checkpoint_every=2)
    assert not (tmp_path / "run").exists()
