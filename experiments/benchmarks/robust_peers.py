"""The solvers that `experiments.benchmarks.robust` compares, each behind one function, run in a process of its own.

    python -m experiments.benchmarks.robust_peers KIND NAME INSTANCE.npz SECONDS ANSWER

prints one JSON line per method and writes what each found. A solver maps an instance to {method: prepare}; prepare()
builds or compiles and returns (solve, units, bytes): solve() -> answer, `units` the number of problems in one call, and
`bytes` the memory that the compiled program takes beside its inputs, None where it is not known.
"""

import functools
import sys

import numpy as np

from experiments.benchmarks import peer

# ---- Figure. Instance: datasets, levels[L]. Answer: returns float[runs, targets], means over data sets.


def rlcore_figure(instance):
    """Figure 1 (a) in one program, and every divergence on many data sets and levels; sampling included."""
    jax = _jax()
    import jax.numpy as jnp

    from envs.linear_mdps import simulated
    from experiments.robust.simulated import LEVEL, PENALTY, RIDGE, returns, spaces
    from rlcore.robust import pevi, r2pvi, sample_trajectories

    model = simulated()
    full, known = spaces(model)
    uniform = jnp.full((3, 5, 16), 1 / 16)
    many, levels = int(instance["datasets"]), jnp.asarray(instance["levels"])
    draw = lambda seed: sample_trajectories(jax.random.key(seed), model, uniform, 100)  # noqa: E731
    learn = lambda data, kind, level: r2pvi(data, known, None, kind, level, PENALTY, RIDGE, released_code=True)  # noqa: E731
    exact = jax.vmap(lambda policy: returns(policy, model))

    def figure(seeds):
        def one(seed):
            data = draw(seed)
            learned = [learn(data, kind, LEVEL) for kind in ("tv", "kl", "chi2")]
            return exact(jnp.stack([x.policy for x in [pevi(data, full, None, PENALTY, RIDGE), *learned]]))

        return jax.vmap(one)(seeds).mean(0)

    def by_level(kind, seeds):
        def one(seed):
            data = draw(seed)
            return exact(jax.vmap(lambda level: learn(data, kind, level).policy)(levels))

        return jax.lax.map(one, seeds, batch_size=100).mean(0)

    runs = {"figure 1 (a): 4 learners, 20 data sets, 11 targets": (figure, 20, 4 * 20)}
    for kind in ("tv", "kl", "chi2"):
        name = f"{kind}: {many} data sets, {levels.size} levels, 11 targets"
        runs[name] = (functools.partial(by_level, kind), many, many * levels.size)

    def prepare(function, seeds, units):
        return peer.compiled(function, jnp.arange(seeds)), units

    return {name: functools.partial(prepare, *run) for name, run in runs.items()}


# ---- Training. Instance: trajectories. Answer: the weights float[H, d].
MOST_LOOPED = 1000  # trajectories: the loops take a second per thousand, and the searches half a minute


def rlcore_training(instance):
    """One training run on the put option with 30 features for every learner, sampling left out."""
    jax = _jax()
    from envs.put_option import hat_features, sample_prices
    from experiments.benchmarks.robust_loops import LEARNERS, PENALTY, library
    from rlcore.robust import Rules, r2pvi, va_drpvi, va_r2pvi

    features = hat_features()
    data = sample_prices(jax.random.key(0), int(instance["trajectories"]))
    rules = Rules("released", floor=False, least="data", unvisited="estimate")
    learners = {name: library(name, features) for name in LEARNERS if name != "DRPVI, exact cuts"}
    learners |= {
        "R2PVI-chi2": lambda d: r2pvi(d, features, None, "chi2", 3.0, PENALTY, rules=rules),
        "VA-DRPVI": lambda d: va_drpvi(d, features, None, 0.1, PENALTY, rules=rules),
        "VA-R2PVI-TV": lambda d: va_r2pvi(d, features, None, "tv", 3.0, PENALTY, rules=rules),
    }
    chosen = str(instance["learners"]).split(", ") if str(instance["learners"]) else learners
    prepare = lambda name: (peer.compiled(lambda d: learners[name](d).weights, data), 1)  # noqa: E731
    return {name: functools.partial(prepare, name) for name in chosen}


def loops_training(instance):
    """The same runs as plain loops with Nelder-Mead, in the manner of the released code."""
    jax = _jax()
    from envs.put_option import hat_features, sample_prices
    from experiments.benchmarks.robust_loops import LEARNERS, paths, train

    if instance["trajectories"] > MOST_LOOPED:
        return {}
    given = paths(sample_prices(jax.random.key(0), int(instance["trajectories"])), hat_features())
    chosen = str(instance["learners"]).split(", ") if str(instance["learners"]) else LEARNERS
    return {name: lambda name=name: ((functools.partial(train, name, given), None), 1) for name in chosen}


# ---- Operators. Instance: laws[N, S], values[N, S], level, few. Answer: worst cases float[n] of the first problems.
KINDS = ("tv", "kl", "chi2")
BLOCK = 1000  # problems at a time: their intermediate results stay in the cache


def rlcore_operators(instance):
    """This library's operators, values alone: in blocks, and all problems side by side."""
    jax = _jax()
    import jax.numpy as jnp

    from rlcore.robust.worst_case import operator

    laws, values, level = jnp.asarray(instance["laws"]), jnp.asarray(instance["values"]), float(instance["level"])

    def prepare(kind, block):
        one = lambda problem: operator(kind)(*problem, level).value  # noqa: E731
        solve = jax.vmap(one) if block is None else lambda problems: jax.lax.map(one, problems, batch_size=block)
        return peer.compiled(solve, (laws, values)), len(laws)

    return {kind: functools.partial(prepare, kind, BLOCK) for kind in KINDS} | {
        f"{kind}, one vmap": functools.partial(prepare, kind, None) for kind in KINDS
    }


def numpy_operators(instance):
    """The same closed forms on the whole batch in NumPy."""
    m, v, level = instance["laws"], instance["values"], float(instance["level"])

    def tv():
        least = v.min(1, keepdims=True)
        return least[:, 0] + np.einsum("ns,ns->n", m, np.minimum(v - least, level))

    def kl():
        least = v.min(1, keepdims=True)
        return least[:, 0] - level * np.log1p(np.einsum("ns,ns->n", m, np.expm1(-(v - least) / level)))

    def chi2():
        order = np.argsort(v, axis=1)
        y, p = np.take_along_axis(v, order, 1), np.take_along_axis(m, order, 1)
        y = y - y[:, :1]
        mass = np.cumsum(p, axis=1)
        below = np.concatenate([np.zeros((len(y), 1)), np.cumsum(mass[:, :-1] * np.diff(y, axis=1), axis=1)], axis=1)
        k = (below <= 2 * level).sum(1)[:, None] - 1
        at = lambda x: np.take_along_axis(x, k, 1)  # noqa: E731
        capped = np.minimum(y, at(y) + (2 * level - at(below)) / at(mass))
        mean = np.einsum("ns,ns->n", p, capped)
        return v.min(1) + mean - np.einsum("ns,ns->n", p, (capped - mean[:, None]) ** 2) / (4 * level)

    return {name: lambda f=f: ((f, None), len(m)) for name, f in (("tv", tv), ("kl", kl), ("chi2", chi2))}


def scipy_operators(instance):
    """scipy.optimize's Nelder-Mead on the dual over one number, problem by problem, as the released code searches."""
    from scipy.optimize import minimize

    few, level = int(instance["few"]), float(instance["level"])
    laws, values = instance["laws"][:few], instance["values"][:few]

    def tv(m, v, x):
        # The ball's form of the dual with its kink at V_min + level.
        return np.dot(m, np.minimum(v, x)) - np.maximum(x - v.min() - level, 0)

    def kl(m, v, x):
        return x - level * np.dot(m, np.exp((x - v) / level - 1))

    def chi2(m, v, x):
        capped = np.minimum(v, x)
        mean = np.dot(m, capped)
        return mean - np.dot(m, (capped - mean) ** 2) / (4 * level)

    def solve(dual):
        search = lambda m, v: -minimize(lambda x: -dual(m, v, x[0]), [v.mean()], method="Nelder-Mead").fun  # noqa: E731
        return np.array([search(m, v) for m, v in zip(laws, values, strict=True)])

    duals = (("tv", tv), ("kl", kl), ("chi2", chi2))
    return {name: lambda f=f: ((functools.partial(solve, f), None), few) for name, f in duals}


def _jax():
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


SOLVERS = {
    "figure": {"rlcore": (rlcore_figure, "rlcore")},
    "training": {"rlcore": (rlcore_training, "rlcore"), "loops": (loops_training, "scipy")},
    "operators": {
        "rlcore": (rlcore_operators, "rlcore"),
        "NumPy": (numpy_operators, "numpy"),
        "SciPy": (scipy_operators, "scipy"),
    },
}


if __name__ == "__main__":
    peer.serve(SOLVERS, *sys.argv[1:])
