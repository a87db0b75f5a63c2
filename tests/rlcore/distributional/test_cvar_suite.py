"""The CVaR suite of the specification: the best CVaR of four costs, and the law of the policy that has it.

Golden values are the specification's, computed by its prototype: printed to six decimals.
"""

import numpy as np
import pytest

from envs.risk import betting, deep_sea_treasure, mud_and_nails, obstacle
from rlcore.distributional import maximize_cvar, mean

DIGITS = 5.1e-7
# Sweeps and pushes end at 1e-10, over the level 0.1, times the tens of steps that an episode may have left.
SWEEPS = 1e-7
# level: (best CVaR of the cost, the stock it is found at)
SUITE = {
    betting: {0.1: (93.862633, 92), 0.2: (92.193919, 88), 0.5: (84.656789, 71)},
    obstacle: {0.1: (49.109073, 42), 0.2: (41.079294, 29), 0.3: (36.523180, 27)},
    deep_sea_treasure: {0.1: (474.034450, 465), 0.2: (453.872599, 425), 0.5: (419.982713, 370)},
}


@pytest.mark.parametrize("maker", SUITE, ids=lambda maker: maker.__name__)
def test_golden_costs_and_the_laws_of_the_policies(maker):
    problem = maker()
    for level, (cost, stock) in SUITE[maker].items():
        found = maximize_cvar(problem, level)
        assert float(found.value) == pytest.approx(-cost, abs=DIGITS)
        # maximisers of the curve need not be unique; on these problems the first is the specification's
        assert float(found.stock) == stock
        assert float(found.lower) == pytest.approx(float(found.value), abs=SWEEPS)
        assert float(found.lower) - SWEEPS <= float(found.value) <= float(found.upper)
        assert float(found.upper) - float(found.value) <= SWEEPS


def test_mud_and_nails():
    # no golden value is printed: the CVaR falls with the level, and every policy's mean is above each CVaR
    problem, costs = mud_and_nails(), []
    for level in (0.1, 0.2, 0.3):
        found = maximize_cvar(problem, level)
        assert float(found.lower) == pytest.approx(float(found.value), abs=SWEEPS)
        assert float(mean(found.law)) > float(found.value)
        costs.append(-float(found.value))
    assert np.all(np.diff(costs) < 0)
