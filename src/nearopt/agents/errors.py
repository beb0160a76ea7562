"""What can go wrong with an agent, each with a type of its own."""

from nearopt.mdp.errors import NearoptError


class SettingError(NearoptError):
    """A setting that does not exist, or has a value that it cannot have."""


class WrongAgentError(NearoptError):
    """An agent asked for what it does not do: discrete actions where it needs a box, a file of another class."""


class ObservationError(NearoptError):
    """An observation or action whose shape is not the environment's."""


class NoEnvironmentError(NearoptError):
    """Learning was asked of an agent that was loaded without an environment."""


class DivergedError(NearoptError):
    """A loss that is no longer finite."""


class StopTraining(Exception):
    """A callback returned False."""
