"""Return distributions beside Storm (stormpy): the largest probability that what is paid stays within a budget."""

import dataclasses
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np

import envs
from rlcore.distributional import maximize_probability
from rlcore.mdp import MDP
from theory_checks.external import Row, version

# Rewards are negative: to reach the target -b is to pay b at most.
BUDGETS = {
    "betting": (20, 50, 75, 90),
    "lotteries": (7, 9, 11, 13),
    "mud_and_nails": (15, 20, 30, 40),
}
TOLERANCE = 1e-10  # Storm is asked for fractions; ours sweep until probabilities change by at most 1e-12


def storm_model(problem: MDP) -> str:
    """The problem in Storm's text format DRN, for bounds on the reward model "cost".

    States keep their numbers and cost nothing. Storm counts costs of states and ours belong to outcomes, so every
    distinct outcome is a state that is passed on the way; the last state is "done".

    Args: problem: concrete, undiscounted, without a horizon, one first state; rewards are integers <= 0.
    Returns: the text; probabilities are fractions. Raises: ValueError: anything else. Cost: its length.
    """
    next_state, prob, reward, terminal, available, initial = (
        np.asarray(getattr(problem, name))
        for name in ("next_state", "prob", "reward", "terminal", "available", "initial")
    )
    if problem.horizon is not None or float(problem.discount) != 1:
        found = f"discount {float(problem.discount)} and horizon {problem.horizon}"
        raise ValueError(f"problem: found {found}, expected 1 and None")
    if initial.max() != 1:
        raise ValueError(f"initial: found {np.count_nonzero(initial)} first states, expected one")
    cost = np.rint(-reward).astype(int)
    if np.any((prob > 0) & ((reward > 0) | (cost != -reward))):
        raise ValueError("reward: found a gain or part of a unit, expected whole costs")
    target = np.where(terminal, -1, next_state)
    passed = np.unique(np.stack([target, cost], axis=-1)[prob > 0], axis=0).tolist()
    size, done = len(available), len(available) + len(passed)
    number = {tuple(pair): size + i for i, pair in enumerate(passed)}
    lines = ["@type: MDP", "@parameters", "", "@reward_models", "cost", "@nr_states", str(done + 1)]
    lines += ["@nr_choices", str(int(available.sum()) + len(passed) + 1), "@model"]
    for s in range(size):
        lines.append(f"state {s} [0]{' init' if initial[s] else ''}")
        for choice, a in enumerate(np.flatnonzero(available[s])):
            share: dict[int, Fraction] = {}
            for b in np.flatnonzero(prob[s, a]):
                to = number[int(target[s, a, b]), int(cost[s, a, b])]
                share[to] = share.get(to, Fraction(0)) + Fraction(float(prob[s, a, b])).limit_denominator(10**6)
            if sum(share.values()) != 1:
                raise ValueError(f"prob: found fractions that sum to {sum(share.values())} in state {s}, expected 1")
            lines += [f"\taction {choice}", *(f"\t\t{to} : {weight}" for to, weight in sorted(share.items()))]
    for (to, paid), s in number.items():
        lines += [f"state {s} [{paid}]", "\taction 0", f"\t\t{done if to < 0 else to} : 1"]
    return "\n".join([*lines, f"state {done} [0] done", "\taction 0", f"\t\t{done} : 1", ""])


def their_probabilities(model: str, budgets: tuple[int, ...]) -> np.ndarray:
    """Largest probabilities that "done" is reached at a cost of at most each budget: in fractions, then rounded."""
    import stormpy

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.drn"
        path.write_text(model)
        storm = stormpy.build_model_from_drn[stormpy.Rational](str(path))

    def probability(budget: int) -> float:
        asked = stormpy.parse_property(f'Pmax=? [F{{"cost"}}<={budget} "done"]')
        found = stormpy.model_checking(storm, asked, only_initial_states=True)
        return float(found.get_value(storm.initial_states[0]))

    return np.array([probability(budget) for budget in budgets])


def within_budget(name: str) -> Row:
    """One problem, without its horizon: each step costs something, so the budgets end before it."""
    budgets = BUDGETS[name]
    what = f"largest P(return >= -b) of {name!r}, b in {', '.join(map(str, budgets))}"
    package = version("stormpy")
    if package is None:
        return Row(what, "stormpy missing", None, TOLERANCE)
    problem = dataclasses.replace(envs.make(name), horizon=None)
    ours = np.array([float(maximize_probability(problem, -budget).value) for budget in budgets])
    theirs = their_probabilities(storm_model(problem), budgets)
    return Row(what, package, float(np.max(np.abs(ours - theirs))), TOLERANCE)


def checks() -> list[Row]:
    """All comparisons of this family."""
    return [within_budget(name) for name in BUDGETS]
