"""Networks shared by the deep versions, flax Linen behind `init(key, obs)` and `apply(params, obs)`."""
