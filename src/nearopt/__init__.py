"""nearopt: control as probabilistic inference.

Importing loads neither JAX nor SciPy: each public name is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearopt import functional as functional
    from nearopt.agents.composition import Composition as Composition
    from nearopt.agents.composition import compose as compose
    from nearopt.agents.discrete_sac import DiscreteSAC as DiscreteSAC
    from nearopt.agents.files import load_agent as load_agent
    from nearopt.agents.pcl import PCL as PCL
    from nearopt.agents.sac import SAC as SAC
    from nearopt.agents.session import resume as resume
    from nearopt.agents.soft_dqn import SoftDQN as SoftDQN
    from nearopt.agents.soft_pg import SoftPG as SoftPG
    from nearopt.agents.sql import SQL as SQL
    from nearopt.behaviour.estimator import BehaviourModel as BehaviourModel
    from nearopt.behaviour.recovery import Recovery as Recovery
    from nearopt.behaviour.recovery import recover as recover
    from nearopt.inference.ledger import Ledger as Ledger
    from nearopt.inference.ledger import ledger as ledger
    from nearopt.inference.posterior import Posterior as Posterior
    from nearopt.inference.posterior import infer as infer
    from nearopt.mdp.errors import NearoptError as NearoptError
    from nearopt.mdp.files import load as load
    from nearopt.mdp.model import MDP as MDP
    from nearopt.planning.evaluation import Evaluation as Evaluation
    from nearopt.planning.evaluation import evaluate as evaluate
    from nearopt.planning.solve import Solution as Solution
    from nearopt.planning.solve import solve as solve
    from nearopt.records.trajectories import Trajectories as Trajectories

__version__ = "0.1.0"

PUBLIC = {
    "BehaviourModel": "nearopt.behaviour.estimator",
    "Composition": "nearopt.agents.composition",
    "DiscreteSAC": "nearopt.agents.discrete_sac",
    "Evaluation": "nearopt.planning.evaluation",
    "Ledger": "nearopt.inference.ledger",
    "MDP": "nearopt.mdp.model",
    "NearoptError": "nearopt.mdp.errors",
    "Posterior": "nearopt.inference.posterior",
    "SAC": "nearopt.agents.sac",
    "SoftDQN": "nearopt.agents.soft_dqn",
    "PCL": "nearopt.agents.pcl",
    "SQL": "nearopt.agents.sql",
    "SoftPG": "nearopt.agents.soft_pg",
    "Solution": "nearopt.planning.solve",
    "Trajectories": "nearopt.records.trajectories",
    "evaluate": "nearopt.planning.evaluation",
    "Recovery": "nearopt.behaviour.recovery",
    "compose": "nearopt.agents.composition",
    "functional": "nearopt.functional",
    "infer": "nearopt.inference.posterior",
    "ledger": "nearopt.inference.ledger",
    "load": "nearopt.mdp.files",
    "load_agent": "nearopt.agents.files",
    "resume": "nearopt.agents.session",
    "recover": "nearopt.behaviour.recovery",
    "solve": "nearopt.planning.solve",
}
__all__ = sorted(PUBLIC)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'nearopt' has no attribute {name!r}")
    module = importlib.import_module(PUBLIC[name])
    return module if PUBLIC[name] == f"nearopt.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
