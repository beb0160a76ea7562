"""What a picture says about itself: titles that name the inference that was made, labels that fit."""

from functools import cache

import numpy as np
from matplotlib import font_manager, ft2font

from nearopt.figures.layout import goals
from nearopt.figures.results import Answer, Dials, World

LONGEST_NAME = 28  # characters of a state's name


def inference_kind(answer: Dials) -> str:
    """'exact' (κ = 1), 'variational' (κ = 0), 'hard' (τ = 0), or 'tilted' (any other κ)."""
    if answer.temperature == 0:
        return "hard"
    return {1.0: "exact", 0.0: "variational"}.get(answer.optimism, "tilted")


def settings(posterior: Answer, *, temperature: bool = True, optimism: bool = True) -> str:
    """One line: temperature, optimism and what it means, horizon, prior, discount."""
    meaning = {
        "exact": "exact posterior",
        "variational": "variational, true dynamics",
        "hard": "hard control, true dynamics",
        "tilted": "tilted dynamics",
    }[inference_kind(posterior)]
    parts = [
        *([rf"temperature $\tau$ = {posterior.temperature:g}"] if temperature else []),
        *([rf"optimism $\kappa$ = {posterior.optimism:g} ({meaning})"] if optimism else []),
        f"horizon T = {posterior.horizon:,} {'decision' if posterior.horizon == 1 else 'decisions'}",
        prior_words(posterior),
    ]
    if posterior.mdp.discount < 1:
        parts.append(rf"discount $\gamma$ = {posterior.mdp.discount:g}")
    if posterior.state_probs[0].sum() == 0:
        parts.append("SUCCESS IS IMPOSSIBLE: no posterior")
    return "   ".join(parts)


def prior_words(answer: Dials) -> str:
    prior = "flat" if answer.prior is None else "uniform" if isinstance(answer.prior, str) else "given"
    return f"{prior} action prior"


def marginal_symbol(posterior: Answer) -> str:
    """How p(s_t | O) is written for this kind of inference."""
    symbols = {"exact": r"p(s_t\,|\,O_{1:T})", "tilted": r"p_\kappa(s_t)"}
    return symbols.get(inference_kind(posterior), r"q(s_t)")


def backward_words(posterior: Answer) -> tuple[str, str]:
    """Title and colour bar label of the backward messages."""
    match inference_kind(posterior):
        case "exact":
            return (
                "Backward messages: how well it can still end from here",
                r"$\log\,\beta_t(s) = V_t(s)/\tau$   [nats]",
            )
        case "variational":
            return "Soft values of variational inference: what is still to come", r"$V_t(s)/\tau$   [nats]"
        case "hard":
            return "Values of hard control: what is still to come", r"$V_t(s)$   [units of reward]"
    return "Soft values in the tilted world: what is still to come", r"$V_t(s)/\tau$   [nats]"


def forward_words(posterior: Answer) -> tuple[str, str]:
    """Title and colour bar label of the forward messages."""
    match inference_kind(posterior):
        case "exact":
            title = "Forward messages: where the past alone puts the agent"
            return title, r"$\log\,\alpha_t(s) = \log\,p(s_t\,|\,O_{1:t-1})$   [nats]"
        case "variational":
            return "The variational policy run forward in the true world", r"$\log\,q(s_t)$   [nats]"
        case "hard":
            return "The optimal policy run forward in the true world", r"$\log\,q(s_t)$   [nats]"
    return "Filtered messages of the tilted world", r"$\log\,\alpha_t(s)$   [nats]"


def marginal_words(posterior: Answer) -> tuple[str, str]:
    """Title and colour bar label of the state probabilities."""
    label = f"${marginal_symbol(posterior)}$   [probability]"
    match inference_kind(posterior):
        case "exact":
            return r"The posterior, forward $\times$ backward: where a near-optimal agent is", label
        case "variational":
            return "Where the variational policy is, in the true world", label
        case "hard":
            return "Where the optimal policy is, in the true world", label
    return "Where the agent is, in its tilted world", label


def policy_title(posterior: Answer) -> str:
    names = {"exact": "posterior", "variational": "variational", "hard": "optimal", "tilted": "tilted"}
    return f"The {names[inference_kind(posterior)]} policy"


def paths_title(total: int, drawn: int, cut: bool) -> str:
    """How many trajectories there are, and how many of them and how much of each is drawn."""
    name = "trajectory" if total == 1 else "trajectories"
    which = f"{total:,} {name}" if drawn == total else f"The first {drawn:,} of {total:,} {name}"
    return f"{which}, beginnings only" if cut else which


def visits_label(posterior: Answer) -> str:
    return rf"expected number of visits,  $\Sigma_t\;{marginal_symbol(posterior)}$"


# ---------------------------------------------------------------- names
@cache
def drawable() -> frozenset[int]:
    """Code points that the font of the figures can draw."""
    return frozenset(ft2font.FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap())


def plain(name: object) -> str:
    """A name as one short line that the font can draw; to be set with parse_math=False."""
    text = " ".join(str(name).split())
    text = "".join(c if ord(c) in drawable() else "\N{WHITE SQUARE}" for c in text)
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


def state_label(mdp: World, state: int) -> str:
    """The state's name, or its number; with a mark where it is terminal."""
    text = f"state {state}" if mdp.state_names is None else plain(mdp.state_names[state])
    return f"{text} (end)" if mdp.terminal[state] else text


def action_label(mdp: World, action: int) -> str:
    return f"action {action}" if mdp.action_names is None else plain(mdp.action_names[action])


def moment(posterior: Answer, t: int) -> str:
    return f"t = {t:,}" if t < posterior.horizon else f"t = T = {t:,}"


def arrivals(posterior: Answer, t: int) -> str:
    """How probable it is to be in a goal, in another terminal state, or ended by discount at t; '' where none exist."""
    now = posterior.state_probs[t]
    best, rest = goals(posterior.mdp)
    shares = {"goal": now[best].sum(), "other": now[rest].sum(), "ended": 1 - now.sum()}
    exists = {"goal": len(best) > 0, "other": len(rest) > 0, "ended": posterior.mdp.discount < 1}
    return ", ".join(f"{name} {percent(float(share))}" for name, share in shares.items() if exists[name])


def percent(probability: float) -> str:
    """'0 %', '<1 %', '37 %', '>99 %', '100 %'."""
    if 1e-12 < probability < 0.005:
        return "<1 %"
    if 0.995 <= probability < 1 - 1e-9:
        return ">99 %"
    return f"{100 * float(np.clip(probability, 0, 1)):.0f} %"
