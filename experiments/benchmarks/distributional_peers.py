"""What `experiments.benchmarks.distributional` compares, each behind one function, run in a process of its own.

    python -m experiments.benchmarks.distributional_peers KIND NAME INSTANCE.npz SECONDS ANSWER

prints one JSON line per method and writes what each found. A solver maps an instance to {method: prepare}; prepare()
builds or compiles and returns ((solve, bytes), units): solve() -> answer, `bytes` the memory that the compiled program
takes beside its inputs, None where unknown.
"""

import functools
import sys

import numpy as np

from experiments.benchmarks import peer

# What the machine is asked for.
CACHED, UNCACHED = "bytes streamed, in cache", "bytes streamed, out of cache"
LOOKED_UP, OPERATIONS = "look-ups", "operations"

# ---- Problems of the first three kinds. Instance: next_state, prob, reward [S, A, K], discount, half (C = 2 half + 1).


def _problem(instance):
    """The problem and its grid: nodes up to the greatest possible return, interpolated between."""
    import jax.numpy as jnp

    from rlcore.distributional import stock_grid
    from rlcore.mdp import tabular

    tables = (jnp.asarray(instance[name]) for name in ("next_state", "prob", "reward"))
    window, half = float(instance["window"]), int(instance["half"])
    grid = stock_grid(-window, window, window / half, rounding=str(instance["rounding"]))
    return tabular(*tables, discount=float(instance["discount"])), grid


# ---- Values. Instance: also slopes[n, 2] (below and above 0), sweeps. Answer: values [n, S, C] of the first slopes.


def rlcore_values(instance):
    """This library's stock value iteration, the sweeps counted, for the first pair of slopes."""
    jax = _jax()
    from rlcore.distributional import stock_vi, two_slope

    problem, grid = _problem(instance)
    sweeps = int(instance["sweeps"])

    def solve(below, above):
        return stock_vi(problem, two_slope(above, below), grid, tol=-1.0, max_steps=sweeps).value.value[None]

    slopes = jax.numpy.asarray(instance["slopes"][0])
    return {"stock_vi": lambda: (peer.compiled(solve, *slopes), 1)}


def numpy_values(instance):
    """The same sweeps in NumPy: everything that sweeps share is computed before the first, and not timed."""
    next_state, prob, reward = (instance[name] for name in ("next_state", "prob", "reward"))
    discount, window, half = float(instance["discount"]), float(instance["window"]), int(instance["half"])
    below, above = instance["slopes"][0]

    def prepare():
        nodes = np.linspace(-window, window, 2 * half + 1)
        size = nodes.size
        stock = (nodes + reward[..., None]) / discount
        steps = np.clip((stock + window) / (window / half), 0, size - 1)
        lower = np.minimum(steps.astype(np.intp), size - 2)
        weight = steps - lower
        row = next_state[..., None] * size + lower
        out = [np.flatnonzero(stock < -window), np.flatnonzero(stock > window)]
        to = [np.broadcast_to(next_state[..., None], stock.shape).ravel()[where] for where in out]
        beyond = [stock.ravel()[where] for where in out]
        utility = np.where(nodes < 0, below, above) * nodes

        def mean_sweep(mean, slope):
            sign = -1 if slope < 0 else 1
            return sign * (sign * (prob * (reward + discount * mean[next_state])).sum(-1)).max(1)

        def solve():
            value, means = np.tile(utility, (len(next_state), 1)), [np.zeros(len(next_state))] * 2
            seen, upper = np.empty(stock.shape), np.empty(stock.shape)
            for _ in range(int(instance["sweeps"])):
                flat = value.ravel()
                np.take(flat, row, out=seen)
                np.take(flat, row + 1, out=upper)
                upper -= seen
                upper *= weight
                seen += upper
                for where, state, start, mean, slope in zip(out, to, beyond, means, (below, above), strict=True):
                    seen.ravel()[where] = slope * (start + mean[state])
                value = discount * np.einsum("sak,sakc->sac", prob, seen).max(1)
                means = [mean_sweep(mean, slope) for mean, slope in zip(means, (below, above), strict=True)]
            return value[None]

        return (solve, None), 1

    return {"vectorised": prepare}


# ---- Slopes: the same values for many utilities at once; see above.


def rlcore_slopes(instance):
    """Stock value iteration for the first 1, 4, 16, ... pairs of slopes, side by side and one after another."""
    jax = _jax()
    import jax.numpy as jnp

    from rlcore.distributional import stock_vi, two_slope

    problem, grid = _problem(instance)
    slopes, sweeps = jnp.asarray(instance["slopes"]), int(instance["sweeps"])

    def one(pair):
        return stock_vi(problem, two_slope(pair[1], pair[0]), grid, tol=-1.0, max_steps=sweeps).value.value

    ways = {"one vmap": jax.vmap(one), "lax.map": lambda pairs: jax.lax.map(one, pairs)}
    counts = [count for count in (1, 4, 16, 64, 256) if count <= len(slopes)]
    prepare = lambda way, count: (peer.compiled(ways[way], slopes[:count]), count)  # noqa: E731
    return {f"{way}, {count}": functools.partial(prepare, way, count) for way in ways for count in counts}


def machine_slopes(instance):
    """What this machine can do, by compiled loops: bytes streamed, numbers looked up and operations per second.

    Bytes are those of arrays that fit the last cache and of arrays that do not; look-ups go where a sweep's go.
    """
    jax = _jax()
    import jax.numpy as jnp

    from rlcore.distributional.stock_vi import arrivals

    problem, grid = _problem(instance)
    size = grid.lattice.size
    small, large = (2**20, 2**26) if len(instance["slopes"]) > 16 else (2**12, 2**14)
    at = problem.next_state[..., None] * size + arrivals(problem.reward, grid, problem.discount, 0).at.index
    table = jnp.linspace(0.0, 1.0, problem.initial.size * size)
    square = jnp.full((1024 if large > 2**20 else 128,) * 2, 1e-3)

    def streamed(numbers, repeats):
        x = jnp.linspace(0.0, 1.0, numbers)
        loop = lambda x, y: jax.lax.fori_loop(0, repeats, lambda _, y: x + 0.5 * y, y)  # noqa: E731
        return loop, (x, x), 24 * numbers * repeats  # two read, one written

    def look_up(table, at):
        read = lambda _, v: jnp.max(v.at[at].get(mode="promise_in_bounds"), axis=(1, 2)).reshape(-1)  # noqa: E731
        return jax.lax.fori_loop(0, 50, read, table)

    programs = {
        CACHED: streamed(small, 64),
        UNCACHED: streamed(large, 4),
        LOOKED_UP: (look_up, (table, at), 50 * at.size),
        OPERATIONS: (lambda x: x @ x, (square,), 2 * square.shape[0] ** 3),
    }
    prepare = lambda function, given, units: (peer.compiled(function, *given), units)  # noqa: E731
    return {name: functools.partial(prepare, *program) for name, program in programs.items()}


# ---- Backups of laws. Instance: also choice[S, C + 2], atoms, backups. Answer: stop-loss curves [S, C + 2, Z].


def _laws(instance):
    """The problem and grid of the laws, what is chosen, and their lattice: as wide as returns, stocks rounded."""
    import jax.numpy as jnp

    from rlcore.distributional import lattice

    problem, grid = _problem(instance)
    half = int(instance["atoms"]) // 2
    window = float(instance["window"])
    return problem, grid, jnp.asarray(instance["choice"]), lattice(-window, window, window / half)


def rlcore_backups(instance):
    """Projected backups of a fixed policy: stop-loss curves are interpolated; or probabilities are scattered."""
    jax = _jax()
    from rlcore.distributional import Categorical, Law, project_categorical, to_stop_loss
    from rlcore.distributional.law_backup import law_backup, mixtures, zero_laws

    problem, grid, choice, points = _laws(instance)
    kept, backups = Categorical(points), int(instance["backups"])

    def curves(choice):
        start = zero_laws(problem, grid, kept)
        return jax.lax.fori_loop(0, backups, lambda _, table: law_backup(problem, grid, kept, table, choice), start)

    def scattered(choice, at_once):
        mixture = mixtures(problem, grid, choice)

        def backup(_, table):
            flat = table.reshape(-1, points.size)

            def of_law(row, prob, shift):
                values = shift[:, None] + problem.discount * points.points[None]
                return project_categorical(Law(values.ravel(), (prob[:, None] * flat[row]).ravel()), points)

            of_state = lambda some: jax.vmap(of_law)(some.row, some.prob, some.shift)  # noqa: E731
            return jax.lax.map(of_state, mixture, batch_size=at_once)

        zero = kept.output(zero_laws(problem, grid, kept))
        return to_stop_loss(points, jax.lax.fori_loop(0, backups, backup, zero))

    prepare = lambda f: (peer.compiled(f, choice), backups)  # noqa: E731
    return {
        "stop-loss curves": lambda: prepare(curves),
        "scatter projection, by state": lambda: prepare(lambda choice: scattered(choice, 1)),
        "scatter projection, all states": lambda: prepare(lambda choice: scattered(choice, problem.initial.size)),
    }


def numpy_backups(instance):
    """The scatter projection in NumPy, by `bincount`, one state at a time; where outcomes lead is computed before."""

    def prepare():
        _jax()
        from rlcore.distributional.law_backup import mixtures

        problem, grid, choice, points = _laws(instance)
        mixture = [np.asarray(x) for x in mixtures(problem, grid, choice)[:3]]
        discount, first, spacing, size = float(problem.discount), points.first, float(points.spacing), points.size
        atoms = spacing * (first + np.arange(size))
        rows = choice.shape[1]

        def solve():
            table = np.zeros((choice.size, size))
            table[:, -first] = 1
            for _ in range(int(instance["backups"])):
                new = []
                for row, prob, shift in zip(*mixture, strict=True):
                    steps = np.clip((shift[..., None] + discount * atoms) / spacing - first, 0, size - 1)
                    lower = np.minimum(steps.astype(np.intp), size - 2)
                    mass = prob[..., None] * table[row]
                    upper = mass * (steps - lower)
                    at = (np.arange(rows)[:, None, None] * size + lower).ravel()
                    scattered = np.bincount(at, (mass - upper).ravel(), rows * size)
                    new.append(scattered + np.bincount(at + 1, upper.ravel(), rows * size))
                table = np.stack(new).reshape(-1, size)
            below = np.cumsum(table, axis=-1)
            return (spacing * (np.cumsum(below, axis=-1) - below)).reshape(*choice.shape, size)

        return (solve, None), int(instance["backups"])

    return {"scatter projection": prepare}


# ---- The CVaR suite. Instance: names, levels[n, 3]. Answer: rows of level, best cost, stock, cost and mean by the law,
# how far apart the certified bounds are.


def rlcore_suite(instance):
    """The best CVaR of every problem at every level, with the law of its policy: a first call, compilation and all."""
    _jax()
    import envs
    from rlcore.distributional import cvar, maximize_cvar, mean

    def solve():
        rows = []
        for name, levels in zip(instance["names"], instance["levels"], strict=True):
            problem = envs.make(str(name))
            for level in levels:
                found = maximize_cvar(problem, float(level))
                by_law = -cvar(found.law, float(level)), -mean(found.law)
                rows.append([level, -found.value, found.stock, *by_law, found.upper - found.lower])
        return np.array(rows, float)

    return {"maximize_cvar": lambda: ((solve, None), instance["levels"].size)}


# ---- Laws of the treasure dive. Instance: name, level, low, spacing, atoms. Answer: the best CVaR of the cost.


def rlcore_treasure(instance):
    """Distributional value iteration, as shipped, with its compilation; then the best start."""
    jax = _jax()
    import envs
    from rlcore.distributional import Categorical, dist_vi, fitting_grid, lattice, two_slope

    problem = envs.make(str(instance["name"]))
    low, spacing, atoms = float(instance["low"]), float(instance["spacing"]), int(instance["atoms"])
    kept = Categorical(lattice(low, low + spacing * (atoms - 1), spacing))
    grid = fitting_grid(problem)
    assert kept.size == atoms

    def solve():
        found = dist_vi(problem, two_slope(0.0, 1.0), grid, kept)
        curve = found.value.value[0] / float(instance["level"]) - grid.nodes
        jax.block_until_ready(found)
        return -np.max(np.asarray(curve))[None]

    return {f"dist_vi, {grid.lattice.size} stocks": lambda: ((solve, None), problem.initial.size)}


# ---- The deep agent. Instance: seeds, steps, episodes. Answer: mean distances less the least possible [seed, target].


def rlcore_agent(instance):
    """D-eta-N on Catch-match for all targets: all seeds side by side, one alone, and all with the stock frozen."""
    jax = _jax()
    import jax.numpy as jnp

    import envs
    from envs.catch_match_game import catch_match_game
    from rlcore.distributional import minimize_distance, two_slope
    from rlcore.distributional.din import DEtaN, play, train
    from rlcore.nn.quantile import QuantileNetwork

    balls, stick = 4, 0.2
    game, utility = catch_match_game(balls, stick=stick), two_slope(-1.0, 1.0)
    targets = np.arange(-balls, balls + 1.0)
    exact = envs.make("catch_match", balls=balls, stick=stick)
    seeds, steps, episodes = (int(instance[name]) for name in ("seeds", "steps", "episodes"))

    def missed(key, config):
        state, _ = train(key, game, utility, config, jnp.asarray(-targets))
        keys = jax.random.split(key, episodes)

        def distance(target):
            one = lambda key: play(key, game, utility, config, state.params, -target, exact.horizon)  # noqa: E731
            return jnp.mean(jnp.abs(jax.vmap(one)(keys) - target.astype(jnp.float32)))

        return jax.lax.map(distance, jnp.asarray(targets))

    def prepare(count, frozen):
        config = DEtaN(QuantileNetwork(3), window=float(balls), num_steps=steps, frozen=frozen)
        least = np.array([float(minimize_distance(exact, target).value) for target in targets])
        keys = jax.random.split(jax.random.key(0), count)
        solve, memory = peer.compiled(jax.vmap(functools.partial(missed, config=config)), keys)
        return (lambda: solve() - least, memory), count

    ways = {f"{seeds} seeds": (seeds, False), "1 seed": (1, False), f"{seeds} seeds, stock frozen": (seeds, True)}
    return {name: functools.partial(prepare, *way) for name, way in ways.items()}


def _jax():
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


SOLVERS = {
    "values": {"rlcore": (rlcore_values, "rlcore"), "NumPy": (numpy_values, "numpy")},
    "backups": {"rlcore": (rlcore_backups, "rlcore"), "NumPy": (numpy_backups, "numpy")},
    "slopes": {"machine": (machine_slopes, "jax"), "rlcore": (rlcore_slopes, "rlcore")},
    "suite": {"rlcore": (rlcore_suite, "rlcore")},
    "treasure": {"rlcore": (rlcore_treasure, "rlcore")},
    "agent": {"rlcore": (rlcore_agent, "rlcore")},
}

if __name__ == "__main__":
    peer.serve(SOLVERS, *sys.argv[1:])
