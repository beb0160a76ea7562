"""A posterior in a few numbers, for programs and for people, from its public attributes."""

from typing import Any

import numpy as np

from nearopt.cli.output import print_table
from nearopt.inference.posterior import Posterior

SMALL = 200  # states, and decisions, up to which arrays are printed as JSON
MOST_WORK = 50_000_000  # branches × decisions up to which the expectations below are summed


def summarise(post: Posterior) -> dict[str, Any]:
    """The numbers of `nearopt infer`, under the names of their attributes where they have one."""
    mdp, possible = post.mdp, post.state_probs[0].sum() > 0
    reward, entropy = expectations(post) if possible else (None, None)
    out: dict[str, Any] = dict(
        horizon=post.horizon, temperature=post.temperature, optimism=post.optimism, discount=mdp.discount
    )
    out |= dict(num_states=mdp.num_states, num_actions=mdp.num_actions, num_choices=mdp.num_choices)
    out |= dict(log_partition=post.log_partition, meaning=meaning(post)[0])
    out |= dict(elbo=post.elbo) if post.optimism == 0 else {}
    out |= dict(expected_reward=reward, entropy=entropy)
    out["terminal_probability"] = float(post.state_probs[-1][mdp.terminal].sum()) if possible else None
    out["most_visited"] = most_visited(post)
    return out


def small_arrays(post: Posterior) -> dict[str, np.ndarray]:
    """What JSON holds of a small model."""
    if max(post.mdp.num_states, post.horizon) > SMALL:
        return {}
    return dict(value=post.value, state_probs=post.state_probs, policy=policy_of(post))


def policy_of(post: Posterior) -> np.ndarray:
    """`post.policy`, by the function that is already compiled for single steps."""
    return np.stack([post.policy_at(t) for t in range(post.horizon)])


def meaning(post: Posterior) -> tuple[str, str]:
    """What the log partition is, and a word of caution."""
    if post.temperature == 0:
        return "ELBO", "in the limit of temperature 0, which only tells the sign of the expected reward"
    if post.optimism == 0:
        return "ELBO", "of variational inference: dynamics fixed"
    if post.optimism != 1:
        return "log partition", f"at optimism {post.optimism:g}"
    caution = "" if post.prior is not None else "; the flat prior is not normalised, so neither is this"
    return "log evidence", f"log p(O_1:{post.horizon}){caution}"


def most_visited(post: Posterior, count: int = 5) -> list[dict[str, Any]]:
    """The states, terminal ones apart, in which most decisions are expected to be made."""
    mdp = post.mdp
    visits = np.where(mdp.terminal, 0.0, post.state_probs[:-1].sum(axis=0))
    best = [int(s) for s in np.argsort(-visits, kind="stable")[:count] if visits[s] > 0]
    name = lambda s: None if mdp.state_names is None else " ".join(str(mdp.state_names[s]).split())
    return [dict(state=s, name=name(s), visits=float(visits[s])) for s in best]


def expectations(post: Posterior) -> tuple[float | None, float | None]:
    """E[Σ r] in the world the posterior believes in, and Σ_t E[entropy of π_t] in nats.

    None where they would take long; the reward also where it depends on the next state and the episode may end there by
    discount.
    """
    mdp = post.mdp
    if mdp.num_branches * post.horizon > MOST_WORK:
        return None, None
    reward, entropy = 0.0, 0.0
    for t in range(post.horizon):
        _, policy, branches = post.step(t)
        probability = policy[mdp.choice_state, mdp.choice_action]
        mass = post.state_probs[t][mdp.choice_state] * probability
        acted = mass > 0
        entropy -= float((mass[acted] * np.log(probability[acted])).sum())
        if mdp.choice_reward is not None:
            reward += float((mass[acted] * mdp.choice_reward[acted]).sum())
        elif mdp.discount == 1:
            flow = mass[mdp.branch_choice] * branches[mdp.layout.position]
            reward += float((flow[flow > 0] * mdp.branch_reward[flow > 0]).sum())
    return (reward if mdp.choice_reward is not None or mdp.discount == 1 else None), entropy


# ---------------------------------------------------------------- text
def show(report: dict[str, Any], post: Posterior) -> None:
    """The numbers for people."""
    print(f"{report['source']}: {post.mdp!r}")
    dials = f"temperature {post.temperature:g}, optimism {post.optimism:g}, prior {report['prior']}"
    print(f"horizon {post.horizon:,}, {dials}\n")
    print_table(number_rows(report, post))
    if report["most_visited"]:
        print("\nmost decisions are made in")
        print_table([visit_row(post, entry) for entry in report["most_visited"]])
    if report["files"]:
        print("\nwritten")
        print_table([(path,) for path in report["files"]])


def number_rows(report: dict[str, Any], post: Posterior) -> list[tuple[str, ...]]:
    name, caution = meaning(post)
    rows = [(name, f"{post.log_partition:.6g} nats", caution)]
    if post.state_probs[0].sum() == 0:
        rows.append(("no posterior", "", "success is impossible: every behaviour meets a reward of -inf"))
    if report["expected_reward"] is not None:
        world = "the true world" if post.optimism == 0 else "the world that the posterior believes in"
        rows.append(("expected reward", f"{report['expected_reward']:.6g}", f"summed over time, in {world}"))
    if report["entropy"] is not None:
        rows.append(("policy entropy", f"{report['entropy']:.6g} nats", "expected, summed over time"))
    if post.mdp.terminal.any() and report["terminal_probability"] is not None:
        share = f"{100 * report['terminal_probability']:.4g} %"
        rows.append(("has ended", share, f"probability of a terminal state after {post.horizon:,} decisions"))
    return rows


def visit_row(post: Posterior, entry: dict[str, Any]) -> tuple[str, ...]:
    place = post.mdp.positions
    where = "" if place is None else "column {:g}, row {:g}".format(*place[entry["state"]])
    share = 100 * entry["visits"] / post.state_probs[:-1][:, ~post.mdp.terminal].sum()
    return f"state {entry['state']}", entry["name"] or "", where, f"{entry['visits']:.3g} decisions", f"{share:.2g} %"
