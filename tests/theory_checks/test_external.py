"""The outside checks: verdicts, a missing package, and the ledger's discovery, which must not see them."""

import pytest

from theory_checks import external, ledger
from theory_checks.external import Row, lsd, nash
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
