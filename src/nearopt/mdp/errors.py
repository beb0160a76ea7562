"""Every mistake a user can make has a type of its own, and every message ends with a mend.

>>> raise RowSumError("state 2, action 0: the probabilities sum to 0.97", "divide the row by its sum")
Traceback (most recent call last):
...
nearopt.mdp.errors.RowSumError: state 2, action 0: the probabilities sum to 0.97; divide the row by its sum.
"""


class NearoptError(ValueError):
    """Wrong input. `problem` names the offending value, `mend` one way to put it right."""

    def __init__(self, problem: str, mend: str):
        self.problem, self.mend = problem, mend
        super().__init__(problem, mend)

    def __str__(self) -> str:
        return f"{self.problem}; {self.mend}."


# ---------------------------------------------------------------- the model
class EmptyModelError(NearoptError):
    """A model without states or without actions."""


class ShapeError(NearoptError):
    """Arrays whose shapes do not fit together."""


class NotNumericError(NearoptError):
    """An array that does not hold real numbers."""


class NotBooleanError(NearoptError):
    """A mask that does not hold booleans."""


class NaNError(NearoptError):
    """NaN where a number is needed."""


class NegativeProbabilityError(NearoptError):
    """A transition probability below zero."""


class RowSumError(NearoptError):
    """Transition probabilities of a choice that do not sum to one."""


class InfiniteRewardError(NearoptError):
    """A reward of +inf (-inf is a value: it forbids)."""


class NoChoiceError(NearoptError):
    """A state that is not terminal and has no available choice."""


class MissingTransitionError(NearoptError):
    """A choice marked available whose transition row is empty."""


class StateRangeError(NearoptError):
    """A state number outside 0 .. S-1."""


class ActionRangeError(NearoptError):
    """An action number outside 0 .. A-1."""


class DiscountError(NearoptError):
    """A discount outside [0, 1]."""


class InitialError(NearoptError):
    """First-state probabilities that are negative or do not sum to one."""


class NameCountError(NearoptError):
    """A number of names that is not the number of things to name."""


class DuplicateNameError(NearoptError):
    """One name for two states or two actions."""


class PositionError(NearoptError):
    """Coordinates that are not one finite pair per state."""


class DenseTooLargeError(NearoptError):
    """A dense table asked of a model that is too large for one."""


class AmbiguousRewardError(NearoptError):
    """Rewards that do not fit the table they are asked for, or could be read in two ways."""


class StructureError(NearoptError):
    """Offsets that do not describe states, choices and branches."""


# ---------------------------------------------------------------- functions and grids
class NoInitialStateError(NearoptError):
    """A model that is explored from nowhere."""


class UnhashableStateError(NearoptError):
    """A state that cannot be a dictionary key."""


class UnhashableNameError(NearoptError):
    """An action or a name that cannot be a dictionary key."""


class BranchError(NearoptError):
    """A `step` that does not return (probability, next state, reward) triples."""


class TooManyStatesError(NearoptError):
    """An exploration that does not end."""


class EmptyGridError(NearoptError):
    """A grid without cells."""


class UnknownCharacterError(NearoptError):
    """A character that means nothing in a grid."""


class RaggedGridError(NearoptError):
    """Grid lines of different lengths."""


class NoStartError(NearoptError):
    """A grid without a start cell."""


class SlipError(NearoptError):
    """A slip probability outside [0, 1]."""


class GridRewardError(NearoptError):
    """A grid reward that is not a number below +inf."""


# ---------------------------------------------------------------- Gymnasium
class UnknownEnvironmentError(NearoptError):
    """An environment that Gymnasium cannot make."""


class NotTabularError(NearoptError):
    """An environment without a transition table."""


class TableError(NearoptError):
    """A transition table that does not fit its own environment."""


class HiddenRandomnessError(NearoptError):
    """An environment whose table does not tell all that its steps do."""


class EpisodeOverError(NearoptError):
    """A step asked of an environment that has ended or was not reset."""


# ---------------------------------------------------------------- files
class MissingFileError(NearoptError):
    """A path that leads to no file."""


class FileAccessError(NearoptError):
    """A path that cannot be read or written: a folder, missing rights, a full disk."""


class FormatError(NearoptError):
    """A file name or file content of no known format."""


class TruncatedFileError(NearoptError):
    """A file that ends before its content does."""


class CorruptFileError(NearoptError):
    """A file whose content contradicts itself."""


class VersionError(NearoptError):
    """A file written in a version that this one does not know."""


class ParseError(NearoptError):
    """A line of a text file that cannot be read."""


class UnsupportedModelError(NearoptError):
    """A file that holds another kind of model than an MDP."""


class OversizeError(NearoptError):
    """A file that would unpack to far more than its size."""


class LossySaveError(NearoptError):
    """A save that would lose part of the model."""


class UnsaveableNameError(NearoptError):
    """A state or action name that a file cannot hold."""


# ---------------------------------------------------------------- inference
class NotAModelError(NearoptError):
    """Something else where an `MDP` is needed."""


class HorizonError(NearoptError):
    """A horizon that is not a whole number of at least one."""


class TemperatureError(NearoptError):
    """A temperature that is negative or not finite."""


class OptimismError(NearoptError):
    """An optimism that is not finite, or not 0 at temperature 0."""


class PriorShapeError(NearoptError):
    """A prior that is not (S, A), (T, S, A), "uniform" or None."""


class NegativePriorError(NearoptError):
    """A prior with an entry that is negative or not finite."""


class PriorUnavailableError(NearoptError):
    """A prior with mass on an action that is not available."""


class EmptyPriorError(NearoptError):
    """A prior without mass on any available action of a state."""


class FinalValueError(NearoptError):
    """A final value that is not one number below +inf per state."""


class TimeError(NearoptError):
    """A time step outside the horizon."""


class SampleSizeError(NearoptError):
    """A number of trajectories below one, or a seed that is not a whole number."""


class ImpossibleEvidenceError(NearoptError):
    """Success that has probability zero: there is no posterior to draw from, or to compare with."""


class CountError(NearoptError):
    """A number of things to list that is not a whole number of at least one."""


class TrajectoryShapeError(NearoptError):
    """Trajectories whose states and actions do not fit together."""


class TrajectoryLengthError(NearoptError):
    """A trajectory that is longer than the horizon."""


class TrajectoryEndError(NearoptError):
    """A trajectory that stops where the process goes on."""


# ---------------------------------------------------------------- recorded behaviour
class EmptyRecordsError(NearoptError):
    """A table of recorded behaviour without rows, or with none that can be used."""


class MissingColumnError(NearoptError):
    """A table without a column that is asked for."""


class ColumnError(NearoptError):
    """A column that is no list of one value per row."""


class LabelError(NearoptError):
    """A row that does not tell its episode or subject, or one label for two episodes."""


class RecordedTimeError(NearoptError):
    """A recorded time that is no whole number, or does not increase within its episode."""


class TimeSpanError(NearoptError):
    """Recorded times that do not count decisions."""


class RecordedNumberError(NearoptError):
    """A recorded state or action that is neither a number from 0 nor a name of the model."""


class GapError(NearoptError):
    """Steps that were not recorded, where all are needed."""


class MisfitError(NearoptError):
    """Recorded behaviour that the model cannot have produced."""


class DatasetError(NearoptError):
    """A Minari dataset that does not hold numbered states and actions, or cannot be written."""


# ---------------------------------------------------------------- planning
class MethodError(NearoptError):
    """A method of solution that there is not."""


class ToleranceError(NearoptError):
    """A tolerance that is not a number above zero."""


class ForbiddenStateError(NearoptError):
    """States from which every behaviour meets a reward of -inf: their value is not finite."""


class ImproperError(NearoptError):
    """Episodes without discount that never surely end: their value is not finite."""


class DivergentError(NearoptError):
    """States among which value grows, or falls, with every step, without end."""


class UndecidedError(NearoptError):
    """A value for which no finite bounds could be proved."""


class RoundingFloorError(NearoptError):
    """A tolerance that float64 numbers cannot reach on this model."""


class PolicyError(NearoptError):
    """A policy whose rows are not distributions over the available actions."""


# ---------------------------------------------------------------- the command line and figures
class ArgumentError(NearoptError):
    """A command-line value that cannot be read."""


class MissingExtraError(NearoptError):
    """An optional library that is not installed."""


# ---------------------------------------------------------------- explaining behaviour
class RewardKindError(NearoptError):
    """A family of rewards that does not exist, or that does not go with the horizon."""


class FeatureError(NearoptError):
    """Features whose shape fits no model."""


class PenaltyError(NearoptError):
    """l2 or smoothness that is no number of at least 0."""


class NoDecisionsError(NearoptError):
    """Trajectories without a single recorded decision."""


class NoSolutionError(NearoptError):
    """An agent without a finite value, where a fit would have to begin."""


class KindError(NearoptError):
    """A name of a method (of standard errors, intervals, baselines) that does not exist."""


class GroupError(NearoptError):
    """Too few groups of trajectories, or none, for what is asked of them."""
