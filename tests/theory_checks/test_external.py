"""The outside checks: verdicts, a missing package, and the ledger's discovery, which must not see them."""

import dataclasses
import re
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.bridge import save_bridge
from theory_checks import external, ledger
from theory_checks.external import Row, distributional, lsd, nash, sqirl
from theory_checks.external.__main__ import main


def test_verdicts():
    assert Row("w", "p 1", 1e-9, 1e-8).verdict == "agrees"
    assert Row("w", "p 1", 2e-8, 1e-8).verdict == Row("w", "p 1", float("nan"), 1e-8).verdict == "DIFFERS"
    assert Row("w", "p missing", None, 1e-8).verdict == "not run"
    assert external.version("no_such_package_at_all") is None and external.version("jax").startswith("jax ")


def test_a_missing_package_is_a_row_and_a_difference_an_error(monkeypatch, capsys):
    monkeypatch.setattr(nash, "version", lambda package: None)
    assert main(["nash"]) == 0
    assert capsys.readouterr().out.count("not run") == 2
    monkeypatch.setattr(lsd, "version", lambda package: None)
    assert main(["lsd"]) == 0
    assert capsys.readouterr().out.count("not run") == 4
    monkeypatch.setattr(distributional, "version", lambda package: None)
    assert main(["distributional"]) == 0
    assert capsys.readouterr().out.count("not run") == 3
    monkeypatch.setenv("RLCORE_BRIDGE", "no such folder")
    assert main(["sqirl"]) == 0
    assert capsys.readouterr().out.count("not run") == 4
    monkeypatch.setattr(nash, "checks", lambda: [Row("w", "p 1", 1.0, 1e-8)])
    assert main([]) == 1 and "DIFFERS" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["chess"])


def test_the_ledger_does_not_look_there():
    assert "external" not in ledger.families()


@pytest.mark.parametrize(("package", "check"), [("pygambit", "logit_equilibria"), ("pref_voting", "maximal_lotteries")])
def test_installed_packages_agree(package, check, monkeypatch):
    monkeypatch.setattr(nash, "NUM_GAMES", 5)
    verdict = getattr(nash, check)().verdict
    assert verdict == ("agrees" if external.version(package) else "not run")


def test_whittle_indices_agree(monkeypatch):
    monkeypatch.setattr(lsd, "NUM_ARMS", 3)
    verdict = lsd.whittle("reset", monotone=True).verdict
    assert verdict == ("agrees" if external.version("markovianbandit-pkg") else "not run")


def test_a_bridge_table_is_compared_number_by_number(monkeypatch, tmp_path):
    # The rebuilt corridor has no duplicates: its counts of states differ, its values do not.
    save_bridge(tmp_path / "MiniGrid-KeyCorridorS3R1-v0.npz", envs.make("key_corridor"))
    numbers = {"official": dict(CORRIDOR_OFFICIAL), "prototype": {"random return": ".0032357130021994796"}}
    monkeypatch.setattr(sqirl, "TABLES", {"MiniGrid-KeyCorridorS3R1-v0": (100, numbers)})
    monkeypatch.setenv("RLCORE_BRIDGE", str(tmp_path))
    rows = sqirl.checks()
    assert [row.verdict for row in rows] == ["agrees", "agrees"]
    numbers["official"]["window"] = "14"
    row = sqirl.checks()[0]
    assert row.verdict == "DIFFERS" and re.fullmatch(r"largest: window; \d+ s", row.note)


def test_numbers_of_gorp_are_compared_at_their_depth(monkeypatch, tmp_path):
    # P(Bin(m, 1/2) > m / 2) of success at depth 1: 1/2, 1/4, ..; depth 2 sees everything.
    save_bridge(tmp_path / "lock.npz", envs.make("combination_lock", length=2, actions=2, distractor=0.5))
    numbers = {"failure, k=1, m=2": "0.75", "smallest m, k=1": "1", "horizon, k=1": "1.000"}
    numbers |= {"failure, k=2, m=1": "0.00", "released m, k=2": "1", "released horizon, k=2": "2.000"}
    monkeypatch.setattr(sqirl, "TABLES", {"lock": (2, {"derived": numbers})})
    monkeypatch.setenv("RLCORE_BRIDGE", str(tmp_path))
    assert [row.verdict for row in sqirl.checks()] == ["agrees"]
    for name, text in numbers.items():
        monkeypatch.setattr(sqirl, "TABLES", {"lock": (2, {"derived": numbers | {name: str(float(text) + 1)}})})
        (row,) = sqirl.checks()
        assert row.verdict == "DIFFERS" and row.note.startswith(f"largest: {name}; ")


CORRIDOR_OFFICIAL = {
    key: value for key, value in sqirl.CORRIDOR["official"].items() if key not in ("states", "sticky, reachable")
}


def read_model(text):
    """A reader of the format DRN: (cost[S], choices[S] of {state: Fraction}, labels[S], numbers in the head)."""
    head, _, body = text.partition("@model\n")
    lines = head.splitlines()
    told = [int(lines[lines.index(word) + 1]) for word in ("@nr_states", "@nr_choices")]
    costs, choices, labels = [], [], []
    for line in body.splitlines():
        words = line.split()
        if words[0] == "state":
            assert int(words[1]) == len(costs)
            costs.append(int(words[2].strip("[]")))
            labels.append(words[3:])
            choices.append([])
        elif words[0] == "action":
            assert int(words[1]) == len(choices[-1])
            choices[-1].append({})
        else:
            choices[-1][-1][int(words[0])] = Fraction(words[2])
    return costs, choices, labels, told


def most_likely_within(text, budget):
    """The largest probability of "done" within a budget, in fractions, where every outcome costs something."""
    costs, choices, labels, _ = read_model(text)
    value = {}
    for left in range(budget + 1):
        paying = [s for s, cost in enumerate(costs) if cost > 0]
        for s in paying:
            (then,) = (to for share in choices[s] for to in share)
            value[s, left] = value.get((then, left - costs[s]), Fraction(0)) if costs[s] <= left else Fraction(0)
        for s, label in enumerate(labels):
            if "done" in label:
                value[s, left] = Fraction(1)
            elif costs[s] == 0:
                value[s, left] = max(sum(p * value[to, left] for to, p in share.items()) for share in choices[s])
    (start,) = (s for s, label in enumerate(labels) if "init" in label)
    return value[start, budget]


def test_the_model_that_storm_gets_is_the_problem():
    problem = dataclasses.replace(envs.make("lotteries"), horizon=None)
    text = distributional.storm_model(problem)
    costs, choices, labels, (states, num_choices) = read_model(text)
    assert len(costs) == states and sum(map(len, choices)) == num_choices
    assert all(sum(share.values()) == 1 for choice in choices for share in choice)
    assert labels == [["init"], *[[]] * (states - 2), ["done"]] and set(costs) == {0, 1, 9}
    # the specification's golden values, exactly: three lotteries, two, one, none
    found = [most_likely_within(text, budget) for budget in distributional.BUDGETS["lotteries"]]
    assert found == [Fraction(17, 20) ** 3, Fraction(17, 20) ** 2, Fraction(17, 20), 1]
    assert most_likely_within(text, 6) == 0


def test_what_storm_cannot_be_told_is_refused():
    problem = envs.make("lotteries")
    with pytest.raises(ValueError, match="horizon 20"):
        distributional.storm_model(problem)
    problem = dataclasses.replace(problem, horizon=None)
    for change, words in (
        ({"discount": problem.discount * 0.5}, "discount 0.5"),
        ({"reward": -problem.reward}, "reward"),
        ({"reward": problem.reward / 2}, "reward"),
        ({"initial": jnp.full_like(problem.initial, 1 / problem.initial.size)}, "first states"),
        ({"prob": problem.prob * 0.999}, "sum to"),
    ):
        with pytest.raises(ValueError, match=words):
            distributional.storm_model(dataclasses.replace(problem, **change))


def test_storm_agrees_and_a_wrong_answer_would_be_seen(monkeypatch):
    verdict = distributional.within_budget("lotteries").verdict
    assert verdict == ("agrees" if external.version("stormpy") else "not run")
    monkeypatch.setattr(distributional, "version", lambda package: "stormpy 0")
    exactly = lambda model, budgets: np.array([float(most_likely_within(model, budget)) for budget in budgets])  # noqa: E731
    monkeypatch.setattr(distributional, "their_probabilities", exactly)
    assert distributional.within_budget("lotteries").verdict == "agrees"
    monkeypatch.setattr(distributional, "their_probabilities", lambda *given: exactly(*given) + 1e-6)
    assert distributional.within_budget("lotteries").verdict == "DIFFERS"
