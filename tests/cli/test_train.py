"""`nearopt train` and `resume` as a user meets them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import nearopt as no
from benchmarks import kills
from nearopt.cli import seeds, train
from nearopt.cli.options import parse
from nearopt.runs import manifest
from nearopt.runs.directory import RunDirectory, open_runs
from tests.cli.commands import WORDS
from tests.cli.test_cli import command, strict


# ---------------------------------------------------------------- train
def test_train_leaves_a_run_and_says_what_it_came_to(trained):
    answer, run = trained.answer, RunDirectory.open(trained.run)
    assert run.finished and run.config["seed"] == 3 and run.config["end"] == 300
    settings = run.config["settings"]
    assert (settings["net_arch"], settings["batch_size"], settings["learning_starts"]) == ([8], 8, 50)
    assert answer["tuned"] == dict(learning_rate=1e-3, tau=0.01) == {name: settings[name] for name in answer["tuned"]}
    assert answer["settings"] == settings and answer["env_kwargs"] == {"max_episode_steps": 20}
    assert (answer["algorithm"], answer["env"], answer["resume"]) == ("SAC", "Pendulum-v1", "exact")
    assert (answer["total_timesteps"], answer["failed"]) == (300, {})
    (row,) = answer["runs"]
    lines = (trained.run / "metrics.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["step", "100", "200", "300"]
    last = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    assert row["steps"] == 300 and row["episodes"] == 15 and row["finished"] and row["run_dir"] == "run"
    assert row["return"] == float(last["return"]) and row["soft_return"] == float(last["soft_return"])


def test_it_is_what_the_library_learns(trained):
    agent = no.SAC(
        "Pendulum-v1",
        seed=3,
        env_kwargs=dict(max_episode_steps=20),
        **dict(net_arch=[8], batch_size=8, learning_starts=50, learning_rate=1e-3, tau=0.01),
    )
    agent.learn(300, log_every=100)
    agent.save(trained.folder / "again")
    for name in ("agent.safetensors", "agent.json"):
        assert (trained.folder / "again" / name).read_bytes() == (trained.run / "agent" / name).read_bytes()


def test_the_default_folder_and_the_summary(call, folder):
    code, out, err = call(*WORDS, "--seed", "4")
    assert (code, err) == (0, "nearopt: tuned for Pendulum-v1: learning_rate=0.001 tau=0.01\n")
    where = "runs/sac-Pendulum-v1-seed4"
    assert RunDirectory.open(where).finished
    assert "SAC on Pendulum-v1 max_episode_steps=20, seed 4" in out and "the same bytes" in out
    for verb in ("evaluate", "plot", "enjoy"):
        assert f"  nearopt {verb} {where} " in out
    code, out, err = call(*WORDS, "--seed", "4")
    assert (code, out) == (1, "") and f"{where} holds a run; nearopt resume {where} goes on" in err


def test_default_folders():
    ask = lambda words: train.default_folder(parse(train.Options, "train", "", words.split()))
    assert str(ask("soft-dqn CartPole-v1 --total-timesteps 1")) == "runs/soft-dqn-CartPole-v1-seed0"
    words = "sac nearopt/Pendulum-v0 --total-timesteps 1 --seeds 3 --seed 2"
    assert str(ask(words)) == "runs/sac-nearopt-Pendulum-v0-seeds2-4"


WRONG = [
    ("train sca Pendulum-v1", "there is no algorithm 'sca'; did you mean sac."),
    ("train SAC Pendulum-v1", "did you mean sac."),
    ("train ppo Pendulum-v1", "there are sac, discrete-sac, soft-dqn, sql, soft-pg, pcl."),
    ("train sac Pendulum-v1 --set lerning_rate=1", "'lerning_rate'; did you mean 'learning_rate'."),
    ("train sac Pendulum-v1 --set learning_rate=fast", "learning_rate='fast' is not a number above 0"),
    ("train sac Pendulum-v1 --set gamma", "--set has 'gamma'; write key=value"),
    ("train sac Pendulum-v1 --set gamma=0 --set gamma=1", "--set gives gamma twice"),
    ("train sac Pendulum-v1 --env-kwargs g", "--env-kwargs has 'g'"),
    ("train sac Pendulum-v1 --env-kwargs gg=1", "Pendulum-v1 was given {'gg': 1}"),
    ("train sac Pendulm-v1", "did you mean Pendulum-v1."),
    ("train sac gym:Pendulum-v1", "write Pendulum-v1."),
    ("train sac CartPole-v1", "the environment has discrete actions"),
    ("train soft-dqn Pendulum-v1", "needs discrete ones"),
    ("train sac Pendulum-v1 --total-timesteps 0", "--total-timesteps is 0"),
    ("train sac Pendulum-v1 --log-every 0", "--log-every is 0"),
    ("train sac Pendulum-v1 --seed -1", "--seed is -1"),
    ("train sac Pendulum-v1 --seeds 2 --wandb x", "--wandb follows one run"),
    ("train sac antigravity:Pendulum-v1 --seeds 2", "no file may import antigravity"),
    ("train sac Pendulum-v1 --wandb x", "Weights & Biases is not installed"),
    ("train sac Pendulum-v1 --run-dir run", "run holds a run; nearopt resume run goes on with it"),
    ("train sac Pendulum-v1 --run-dir seeds", "seeds holds a run"),
    ("train sac Pendulum-v1 --run-dir file", "file is a file"),
    ("train sac Pendulum-v1 --run-dir full", "full is not empty, it holds x"),
    ("resume nothing", "nothing is no folder"),
    ("resume full", "full holds no run"),
    ("resume broken", "broken/config.json is damaged: it is not what was written"),
    ("evaluate full", "full holds no run"),
    ("evaluate begun", "begun has no final agent yet; finish the training: nearopt resume begun"),
    ("evaluate run --episodes 0", "--episodes is 0"),
    ("evaluate run --seed -1", "--seed is -1"),
    ("evaluate module", "would import a module"),
    ("resume module", "would import a module"),
    ("enjoy module --video films", "would import a module"),
    ("enjoy run", "no display to open a window on; film it: --video DIR."),
    ("enjoy run --episodes 0", "--episodes is 0"),
    ("enjoy begun --video films", "begun has no final agent yet"),
    ("plot", "no runs are given"),
    ("plot full", "full holds no run"),
    ("plot run run", "RUN_DIR run is given twice"),
    ("plot run --column retrun", "no column 'retrun'; choose from step, episodes, return"),
    ("plot run --column return return", "--column return is given twice"),
    ("plot run --out curve.pdf", "give a file that ends with .png or .svg"),
    ("plot run --out file/curve.png", "file is a file"),
    ("plot begun", "begun/metrics.csv does not exist"),
]


def change_config(run, change):
    """As one who means harm would: with a right checksum."""
    path = Path(run, "config.json")
    config = manifest.parse(path.read_bytes(), path)
    change(config)
    path.write_bytes(manifest.dump(config))


@pytest.mark.parametrize(("words", "told"), WRONG, ids=[words for words, _ in WRONG])
def test_bad_input_is_one_line_and_exit_code_1(call, here, monkeypatch, words, told):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree("run", "seeds/seed-0")
    shutil.copytree("run", "begun", ignore=shutil.ignore_patterns("agent", "metrics.csv"))
    shutil.copytree("run", "module", ignore=shutil.ignore_patterns("agent") if "resume" in words else None)
    change_config("module", lambda config: config["env"].update(id="antigravity:Pendulum-v1"))
    for name in ("full", "broken"):
        Path(name).mkdir()
    Path("full/x").touch()
    Path("file").touch()
    Path("broken/config.json").write_text("{")
    before = sorted(path for path in Path().rglob("*") if path.name != "lock")
    more = ["--total-timesteps", "9"] if words.startswith("train") and "--total-timesteps" not in words else []
    code, out, err = call(*words.split(), *more)
    assert (code, out, err.count("\n")) == (1, "", 1), err
    assert err.startswith("nearopt: error: ") and told in err and "Traceback" not in err
    assert sorted(path for path in Path().rglob("*") if path.name != "lock") == before  # nothing is left behind
    assert "antigravity" not in sys.modules


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom nearopt.cli.main import main\n"
        "for verb in ('train', 'resume', 'evaluate', 'enjoy', 'plot'): assert main([verb, '--help']) == 0\n"
        "print(*sorted({'jax', 'numpy', 'matplotlib', 'gymnasium'} & set(sys.modules)), file=sys.stderr)"
    )
    done = command("-c", script)
    assert (done.returncode, done.stderr) == (0, "\n")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_whoever_stops_it_is_told_how_to_go_on(call, folder, monkeypatch, error):
    def stop(*_):
        raise error

    monkeypatch.setattr("nearopt.agents.agent.learn", stop)
    if error is ZeroDivisionError:
        with pytest.raises(error):
            call(*WORDS, "--run-dir", "a")
        return
    code, out, err = call(*WORDS, "--run-dir", "a")
    assert (code, out) == (130, "") and err.endswith("nearopt: stopped; `nearopt resume a` goes on\n")


# ---------------------------------------------------------------- resume
def test_a_finished_run_says_so(call, here):
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    code, out, err = call("resume", "run")
    assert (code, err) == (0, "") and out.startswith("finished already: run\n")
    code, out, err = call("resume", "run", "--json")
    assert (code, err) == (0, "") and strict(out)["runs"][0]["steps"] == 300
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_a_stopped_run_ends_with_the_same_bytes(call, here, trained):
    shutil.rmtree("run/agent")
    with open("run/metrics.csv", "a") as file:
        file.write("400,1,2\n")  # what a checkpoint does not know of
    code, out, err = call("resume", "run", "--json")
    assert (code, err) == (0, "")
    assert kills.different(Path("run"), trained.run) == []
    assert strict(out)["runs"][0] == trained.answer["runs"][0]


def test_what_is_not_as_it_was_is_told(call, here):
    shutil.rmtree("run/agent")
    change_config("run", lambda config: (config["versions"].update(jax="0.1"), config["machine"].update(threads=1_000)))
    code, out, err = call("resume", "run")
    assert code == 0 and err.count("nearopt: warning:") == 2
    assert "was 0.1 when the run began" in err and "and were 1000 when it began" in err


# ---------------------------------------------------------------- several seeds
def test_seeds_in_jax_learn_together(call, together, monkeypatch):
    monkeypatch.chdir(together.folder)
    answer = together.answer
    assert [row["seed"] for row in answer["runs"]] == [5, 6, 7]
    assert [row["run_dir"] for row in answer["runs"]] == [f"runs/seed-{i}" for i in range(3)]
    assert len({row["return"] for row in answer["runs"]}) == 3
    assert not any("seed-" in path.name for path in (together.run / "seed-0").iterdir())
    code, out, err = call("resume", "runs")
    assert code == 0 and "3 seeds" in out and "nearopt enjoy" not in out


def test_seeds_in_jax_resume_together(call, together, tmp_path, monkeypatch):
    shutil.copytree(together.run, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    shutil.rmtree("runs/seed-1/agent")
    code, out, err = call("resume", "runs", "--json")
    assert (code, err) == (0, "") and all(row["finished"] for row in strict(out)["runs"])
    for i in range(3):
        assert kills.different(together.run / f"seed-{i}", Path(f"runs/seed-{i}")) == []


def test_ten_seeds_are_in_order(tmp_path, trained):
    for i in (0, 2, 10):
        shutil.copytree(trained.run, tmp_path / f"seed-{i}")
    assert [run.path.name for run in open_runs(tmp_path)] == ["seed-0", "seed-2", "seed-10"]


def test_seeds_of_gymnasium_are_processes(call, trained, tmp_path, compiled_once, monkeypatch):
    """Each is the run that it would be alone; one that fails is reported, and the others go on."""
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*WORDS, "--seed", "2", "--seeds", "2", "--run-dir", "runs", "--json")
    assert (code, err) == (0, "")
    assert [row["seed"] for row in strict(out)["runs"]] == [2, 3]
    assert kills.different(trained.run, Path("runs/seed-1")) == []
    for i in range(2):
        shutil.rmtree(f"runs/seed-{i}/agent")
    for path in Path("runs/seed-0/checkpoints").rglob("*.json"):
        path.write_text("{}")
    code, out, err = call("resume", "runs", "--json")
    answer = strict(out)
    assert (code, err) == (1, "") and list(answer["failed"]) == ["runs/seed-0"]
    assert "holds no checkpoint that is whole" in answer["failed"]["runs/seed-0"]
    assert [row["finished"] for row in answer["runs"]] == [False, True]
    assert kills.different(trained.run, Path("runs/seed-1")) == []


def test_no_process_is_left(monkeypatch, tmp_path):
    started = []

    def start(folder, told, alone):
        assert not alone
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return started[-1]

    def sleep(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(seeds, "start", start)
    monkeypatch.setattr(seeds, "cores", lambda: 2)
    monkeypatch.setattr(seeds.time, "sleep", sleep)
    runs = [SimpleNamespace(path=tmp_path / str(i), config=dict(end=9)) for i in range(3)]
    with pytest.raises(KeyboardInterrupt):
        seeds.side_by_side(runs)  # pyright: ignore[reportArgumentType]
    assert [process.poll() is not None for process in started] == [True, True]


def test_processes_side_by_side_have_a_core_each(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **more: asked.append((command, more["env"])))
    monkeypatch.setenv("XLA_FLAGS", "--xla_x")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with open(os.devnull, "wb") as nowhere:
        for alone in (True, False):
            seeds.start(tmp_path, nowhere, alone)
    assert asked[0][0][1:] == ["-m", "nearopt", "resume", str(tmp_path), "--json"]
    assert [env.get("OMP_NUM_THREADS") for _, env in asked] == [None, "1"]
    assert [env["XLA_FLAGS"] for _, env in asked] == ["--xla_x", "--xla_x --xla_cpu_multi_thread_eigen=false"]
