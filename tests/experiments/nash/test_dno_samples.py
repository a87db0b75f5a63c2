"""The sample-size study on a tiny setting: errors fall with pairs of the policy and stop without an action."""

import numpy as np

from experiments.nash import dno_samples


def test_errors_fall_on_the_support_and_stop_off_it():
    config = dno_samples.Config(num_games=2, num_data_sets=8, num_actions=3, most_pairs=10_000, num_rows=3)
    data = dno_samples.run(config)
    assert dict(data.sizes) == {"game": 2, "data_set": 8, "source": 2, "pairs": 3}
    on, off = (data.sel(source=source) for source in dno_samples.PAIRS_OF)
    mean = on["squared_tv"].mean("data_set")
    # 100 times the pairs: a hundredth of the error, known from 8 data sets to a factor of 4 at worst
    assert (mean.isel(pairs=-1) < mean.isel(pairs=0) / 25).all()
    # All pairs of the policy determine the step; Newton ends at rounding.
    assert float(on["limit"].max()) < 1e-24
    limit = off["limit"].isel(data_set=0)
    assert float(limit.min()) > 1e-5
    np.testing.assert_allclose(off["squared_tv"].isel(pairs=-1).mean("data_set"), limit, rtol=0.5)
    figure = dno_samples.plot(data)
    (axis,) = figure.axes
    (line,) = [line for line in axis.get_lines() if "slope" in str(line.get_label())]
    np.testing.assert_allclose(np.diff(np.log(line.get_ydata())) / np.diff(np.log(line.get_xdata())), -1, rtol=1e-9)
    assert len(dno_samples.measured(data)) == 5
