"""One module per figure or table: config -> data set -> figure. `python -m experiments` lists them.

A module `experiments/<family>/<figure>.py` declares
  TITLE       one line; a figure without a published reference calls itself a study
  PRECISION   "float64" or "float32"
  Config      a frozen dataclass; its fields are the command line
  QUICK       a Config that finishes within seconds on two cores
  run(config) -> xarray.Dataset
  plot(data) -> matplotlib Figure
  REFERENCES  {name: Reference}, and measured(data) -> {name: Measured}, to set our numbers beside others'
"""
