"""Pictures of results. Needs matplotlib (the extra `nearopt[figures]`), but neither pyplot nor any global setting."""

from importlib.util import find_spec

from nearopt.mdp.errors import MissingExtraError

if find_spec("matplotlib") is None:
    raise MissingExtraError("drawing needs matplotlib, which is not installed", 'pip install "nearopt[figures]"')

from nearopt.figures.behaviour import behaviour_figures
from nearopt.figures.canvas import save
from nearopt.figures.comparison import comparison_figures
from nearopt.figures.curves import curves_page, draw_curves, save_curves
from nearopt.figures.dynamics import draw_dynamics, draw_luck
from nearopt.figures.gallery import inference_figures
from nearopt.figures.ledger import dial_page, draw_returns, draw_terms
from nearopt.figures.maps import draw_backward, draw_forward, draw_map, draw_marginal, draw_visits, draw_world
from nearopt.figures.paths import draw_policy, draw_trajectories
from nearopt.figures.solution import solution_figures
from nearopt.figures.tables import draw_policy_bars, draw_state_bars, draw_table, draw_table_trajectories

__all__ = [
    "behaviour_figures",
    "comparison_figures",
    "curves_page",
    "dial_page",
    "draw_backward",
    "draw_curves",
    "draw_dynamics",
    "draw_forward",
    "draw_luck",
    "draw_map",
    "draw_marginal",
    "draw_policy",
    "draw_policy_bars",
    "draw_returns",
    "draw_state_bars",
    "draw_table",
    "draw_table_trajectories",
    "draw_terms",
    "draw_trajectories",
    "draw_visits",
    "draw_world",
    "inference_figures",
    "save",
    "save_curves",
    "solution_figures",
]
