"""What can be wrong with an environment, with what it returns, or with a file about one."""

from nearopt.mdp.errors import NearoptError


# ---------------------------------------------------------------- spaces
class ActionSpaceError(NearoptError):
    """An action space that is neither Discrete nor a one-dimensional Box of floats."""


class ActionBoundsError(NearoptError):
    """A bound of an action that is infinite, or that leaves nothing to choose."""


class ObservationSpaceError(NearoptError):
    """Observations that are no array of a fixed size: graphs, sequences, text."""


class ObservationError(NearoptError):
    """An observation that is not of its space."""


class SpaceDataError(NearoptError):
    """Plain data that does not describe spaces."""


# ---------------------------------------------------------------- environments and their steps
class NotAnEnvironmentError(NearoptError):
    """Something else where a Gymnasium environment is needed."""


class AutoresetError(NearoptError):
    """A vector environment that does not tell how it resets, or not as it says."""


class NonFiniteError(NearoptError):
    """An observation or a reward that is infinite or not a number."""


class EnvironmentIdError(NearoptError):
    """An id in a file that would import a module, or that is no id."""


class EnvironmentArgumentError(NearoptError):
    """Arguments that an environment does not take."""


# ---------------------------------------------------------------- captured state
class CaptureError(NearoptError):
    """An environment whose state cannot be written as plain data."""


class RestoreError(NearoptError):
    """Data that is not the captured state of this environment."""


# ---------------------------------------------------------------- environments in JAX
class UnavailableActionError(NearoptError):
    """A model in which some action is not available in some state, where all have to be."""


class EpisodeLengthError(NearoptError):
    """A time limit that is not a whole number of at least one."""
