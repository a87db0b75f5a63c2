"""The unregularised study on tiny settings: labels, counted mat-vecs, the lottery as a check."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.nash import unregularised
from rlcore.nash import EGPO, PreferenceGame, ProximalPoint, log_normalise, unregularised_gap
from rlcore.solver import iterate

CONFIG = unregularised.Config(
    num_games=2, num_actions=4, budget=200, temperatures=(0.3, 0.1), num_rows=12, tolerance=1e-4
)


def test_labels_counts_and_figure():
    data = unregularised.run(CONFIG)
    rows = len(data["matvecs"])
    assert dict(data.sizes) == {"algorithm": 7, "game": 2, "temperature": 2, "matvecs": rows, "action": 4}
    assert np.all(np.isfinite(data["gap"])) and np.all(data["gap"] >= 0)
    # the programme's polished winners are exact to rounding, and nothing has a smaller gap
    assert np.all(data["lottery_gap"] <= 16 * 2.0**-52)
    # a method of c mat-vecs per step has moved only where a whole step was paid
    start = data["gap"].isel(matvecs=0)
    for algorithm, cost in unregularised.ALGORITHMS.items():
        early = data["matvecs"] < (cost or 4)
        moved = np.any(data["gap"].sel(algorithm=algorithm) != start.sel(algorithm=algorithm), axis=(0, 1))
        assert not np.any(moved & early), algorithm
    preference = unregularised.random_skew(jax.random.fold_in(jax.random.key(0), 1), 4)
    game = PreferenceGame(preference, log_normalise(jnp.zeros(4)), jnp.asarray(0.1))
    state, _ = iterate(ProximalPoint(EGPO(), 12), game, CONFIG.budget // 24)
    # 96 steps, rounded a few dozen times each
    np.testing.assert_allclose(
        data["gap"].sel(algorithm="proximal, 12 EGPO steps", game=1, temperature=0.1).isel(matvecs=-1),
        unregularised_gap(preference, state.log_policy), rtol=1e-9, atol=1e-15,
    )  # fmt: skip
    numbers = unregularised.measured(data)
    assert set(unregularised.REFERENCES) <= set(numbers)
    figure = unregularised.plot(data)
    assert len(figure.axes) == 3 and all(axis.get_xlabel() and axis.get_title() for axis in figure.axes)
    # without temperature, no method's numbers depend on that of the proximal points
    others = [name for name in unregularised.ALGORITHMS if not name.startswith("proximal")]
    gap = data["gap"].sel(algorithm=others)
    np.testing.assert_array_equal(gap.isel(temperature=0), gap.isel(temperature=1))
