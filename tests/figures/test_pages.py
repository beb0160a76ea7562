"""Pages say what they show, files appear whole or not at all, and matplotlib's global state stays as it is."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

import nearopt as no
from nearopt import figures
from nearopt.figures.layout import find_lattice
from nearopt.figures.pages import grid_pages
from nearopt.figures.sheets import sheets
from nearopt.mdp.errors import MissingExtraError, ShapeError, StateRangeError
from tests.figures.answers import fake

ALL = ["world.png", "backward.png", "forward.png", "posterior.png", "trajectories.png", "policy.png", "temperature.png"]


# ---------------------------------------------------------------- pages
def assert_readable(figure):
    """No title, label or legend entry lies over another, or outside the page."""
    figure.set_dpi(60)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    ticks = {
        id(label) for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for label in axis.get_ticklabels(which="both")
    }
    shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and id(t) not in ticks]
    boxes = [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in shown]
    for i, (one, a) in enumerate(boxes):
        assert a.x0 > -1 and a.x1 < figure.bbox.width + 1, one
        for other, b in boxes[:i]:
            assert not (a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1), (one, other)


def page(answer, name, sweep=()):
    make = grid_pages if find_lattice(answer.mdp) is not None else sheets
    return next(figure for found, figure in make(answer, None, sweep) if found == name)


def words(figure):
    return " ".join(t.get_text() for t in figure.findobj(Text))


def test_no_text_covers_another(maze, chain):
    lake = no.MDP.from_gymnasium("FrozenLake-v1")
    for mdp, name in (
        (maze, "posterior.png"),
        (lake, "posterior.png"),
        (lake, "temperature.png"),
        (chain, "temperature.png"),
    ):
        answers = [fake(mdp, temperature=0.25, horizon=123), fake(mdp, temperature=10.0, horizon=123)]
        assert_readable(page(answers[0], name, answers))


def test_titles_name_the_inference(maze, chain):
    for mdp in (maze, chain):
        assert "exact posterior" in words(page(fake(mdp), "backward.png"))
        variational = fake(mdp, optimism=0.0)
        assert "variational policy" in words(page(variational, "posterior.png"))
        assert r"\beta" not in words(page(variational, "backward.png"))
        assert "tilted" in words(page(fake(mdp, optimism=-1.0), "posterior.png"))
        hard = words(page(fake(mdp, temperature=0.0, optimism=0.0), "backward.png"))
        assert "hard control" in hard and "nats" not in hard


# ---------------------------------------------------------------- files
def assert_drawn(paths):
    for path in paths:
        pixels = imread(path)[..., :3]
        assert pixels.std() > 0.02 and min(pixels.shape[:2]) > 150, path.name


def test_every_file_of_a_grid(posterior, tmp_path):
    sweep = [fake(posterior.mdp, temperature=3.0), posterior]
    folder = tmp_path / "new" / "folder"
    paths = figures.inference_figures(posterior, folder, trajectories=posterior.sample(10, seed=0), sweep=sweep)
    assert paths == [folder / name for name in ALL] and sorted(folder.iterdir()) == sorted(paths)
    assert_drawn(paths)


def test_every_file_of_a_world_without_positions(chain, tmp_path, monkeypatch):
    monkeypatch.setattr("nearopt.figures.canvas.DPI", 50)
    trajectories = no.Trajectories.from_arrays([[0, 1, 1, 2, 3]], [[0, 1, 0, 0]])
    sweep = [fake(chain, temperature=3.0)]
    paths = figures.inference_figures(fake(chain), tmp_path, trajectories=trajectories, sweep=sweep)
    assert paths == [tmp_path / name for name in ALL[1:]] and sorted(tmp_path.iterdir()) == sorted(paths)
    assert_drawn(paths)


@pytest.mark.parametrize("text", ["S", "S\n.\n.\n.\nG"])
def test_smallest_worlds(text, tmp_path, monkeypatch):
    monkeypatch.setattr("nearopt.figures.canvas.DPI", 20)
    paths = figures.inference_figures(fake(no.MDP.from_grid(text, discount=0.9), horizon=1), tmp_path)
    assert [path.name for path in paths] == [name for name in ALL if name[:4] not in ("traj", "temp")]


def test_impossible_success(maze, chain, tmp_path, monkeypatch):
    monkeypatch.setattr("nearopt.figures.canvas.DPI", 20)
    for mdp, name in ((maze, "posterior.png"), (maze, "policy.png"), (chain, "posterior.png")):
        answer = fake(mdp)
        answer.state_probs[:] = 0
        answer.value[:] = -np.inf
        figure = page(answer, name)
        assert "IMPOSSIBLE" in words(figure)
        figures.save(figure, tmp_path / name)


def test_nothing_is_left_half_written(posterior, tmp_path, monkeypatch):
    (tmp_path / "world.png").write_bytes(b"the old one")

    def breaks(self, target, **options):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", breaks)
    with pytest.raises(OSError, match="disk full"):
        figures.inference_figures(posterior, tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("world.png", b"the old one")]


def test_results_of_another_model(posterior, chain, tmp_path):
    with pytest.raises(ShapeError, match="7 states"):
        figures.inference_figures(posterior, tmp_path / "a", sweep=[fake(chain)])
    stray = no.Trajectories.from_arrays(state=[[0, 99]], action=[[0]])
    with pytest.raises(StateRangeError, match="state 99"):
        figures.inference_figures(posterior, tmp_path / "a", trajectories=stray)
    assert not (tmp_path / "a").exists()


def test_same_input_same_bytes(posterior, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        figures.save(page(posterior, "world.png"), tmp_path / name / "x.png")
    assert (tmp_path / "a" / "x.png").read_bytes() == (tmp_path / "b" / "x.png").read_bytes()


# ---------------------------------------------------------------- matplotlib
def test_no_global_matplotlib_state():
    code = """
import sys, tempfile, types
import numpy as np
import nearopt as no
assert "matplotlib" not in sys.modules
import matplotlib
settings = lambda: {name: dict.__getitem__(matplotlib.rcParams, name) for name in matplotlib.rcParams}
before = settings()  # read so that nothing is resolved: asking for "backend" imports pyplot
from nearopt import figures
figures.canvas.DPI = 20
mdp, half = no.MDP.from_grid("S.G"), np.full((3, 3), 0.5)
answer = types.SimpleNamespace(
    mdp=mdp, horizon=2, temperature=1.0, optimism=1.0, prior=None, state_probs=half, value=half, log_forward=half,
    policy_at=lambda t: np.full((3, 4), 0.25))
figures.inference_figures(answer, tempfile.mkdtemp(), trajectories=types.SimpleNamespace(state=np.array([[0, 1]])))
assert "matplotlib.pyplot" not in sys.modules
assert settings() == before
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_missing_matplotlib_says_how_to_mend(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("nearopt.figures")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("nearopt.figures", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r'pip install "nearopt\[figures\]"'):
        __import__("nearopt.figures")
