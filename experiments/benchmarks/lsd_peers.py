"""The solvers that `experiments.benchmarks.lsd` compares, each behind one function, run in a process of its own.

    python -m experiments.benchmarks.lsd_peers KIND NAME INSTANCE.npz SECONDS ANSWER

prints one JSON line per method and writes what each found. A solver maps an instance to {method: prepare}; prepare()
builds or compiles and returns (solve, units, bytes): solve() -> answer, `units` the number of problems, or rounds times
replicas, in one call, and `bytes` the memory that the compiled program takes beside its inputs, None where unknown.
"""

import functools
import sys

import numpy as np

from experiments.benchmarks import peer

BLOCK = 250  # problems, or replicas, at a time: their intermediate results stay in the cache

# ---- Relaxation. Instance: payoffs[N, k, S] sorted, satiation, few. Answer: values float[n] of the first problems.


def rlcore_relaxation(instance):
    """This library's cutting planes on all problems: in blocks, and side by side."""
    jax = _jax()
    import jax.numpy as jnp

    from rlcore.lsd import SwitchingBandit, relaxation

    payoffs, low = jnp.asarray(instance["payoffs"]), int(instance["satiation"])
    one = lambda table: relaxation(SwitchingBandit(table, low)).value  # noqa: E731
    ways = {"one vmap": jax.vmap(one)}
    if len(payoffs) > BLOCK:
        ways = {"blocks": lambda tables: jax.lax.map(one, tables, batch_size=BLOCK)} | ways
    prepare = lambda way: (peer.compiled(ways[way], payoffs), len(payoffs))  # noqa: E731
    return {name: functools.partial(prepare, name) for name in ways}


def scipy_relaxation(instance):
    """HiGHS through scipy on the cycle programme, problem by problem: building it, and without that."""
    import scipy.optimize

    few, low = int(instance["few"]), int(instance["satiation"])
    if not few:
        return {}
    payoffs = instance["payoffs"][:few]

    def whole(method):
        return np.array([scipy.optimize.linprog(**_cycles(table, low), method=method).fun for table in payoffs]) * -1

    def solve(programmes):
        return np.array([scipy.optimize.linprog(**programme, method="highs").fun for programme in programmes]) * -1

    return {
        "HiGHS": lambda: ((functools.partial(whole, "highs"), None), few),
        "HiGHS, dual simplex": lambda: ((functools.partial(whole, "highs-ds"), None), few),
        "HiGHS, programmes built before": lambda: (
            (functools.partial(solve, [_cycles(table, low) for table in payoffs]), None),
            few,
        ),
    }


def _cycles(payoffs, low):
    """The cycle programme of one problem, as arguments of `linprog`, vectorised: shares no code with rlcore."""
    import scipy.sparse as sp

    k, s = payoffs.shape
    rest, run = (x.ravel() for x in np.meshgrid(np.arange(1, s - low + 1), np.arange(1, low + 2), indexing="ij"))
    tired = np.concatenate([np.zeros((k, 1)), np.cumsum(payoffs[:, :low][:, ::-1], axis=1)], axis=1)
    gain = np.concatenate([payoffs[:, low + rest - 1] + tired[:, run - 1], payoffs[:, :1]], axis=1)
    length, plays = np.append(rest + run, 1.0), np.append(run, 1.0)
    rows = sp.vstack([sp.kron(sp.identity(k), length[None, :]), np.tile(plays, k)[None, :]], format="csr")
    return {"c": -gain.ravel(), "A_ub": rows, "b_ub": np.ones(k + 1)}


# ---- Simulation of the random-phase schedule. Instance: payoffs[k, S], satiation, rounds, replicas, few.
# Answer: mean reward per round of every replica.


def rlcore_simulation(instance):
    """This library's random-phase schedule through `simulate`: replicas in blocks, and side by side."""
    jax = _jax()
    import jax.numpy as jnp

    from rlcore.lsd import SwitchingBandit, simulate
    from rlcore.lsd.random_phase import random_phase

    problem = SwitchingBandit(jnp.asarray(instance["payoffs"]), int(instance["satiation"]))
    rounds, replicas = int(instance["rounds"]), int(instance["replicas"])
    planner = jax.jit(random_phase)(problem)

    def one(problem, planner, key):
        return simulate(problem, planner, rounds, key, observe=None).total / rounds

    def blocks(problem, planner, keys):
        return jax.lax.map(functools.partial(one, problem, planner), keys, batch_size=BLOCK)

    ways = {"blocks": blocks, "one vmap": jax.vmap(one, (None, None, 0))}
    keys = jax.random.split(jax.random.key(0), replicas)
    prepare = lambda way: (peer.compiled(ways[way], problem, planner, keys), rounds * replicas)  # noqa: E731
    return {name: functools.partial(prepare, name) for name in ways}


def numpy_simulation(instance):
    """The same schedule in NumPy, a loop over rounds that moves all replicas; its plan comes from HiGHS."""
    payoffs, low = instance["payoffs"], int(instance["satiation"])
    rounds, few = int(instance["rounds"]), int(instance["few"])

    def prepare():
        import scipy.optimize

        k, s = payoffs.shape
        programme = _cycles(payoffs, low)
        share = np.maximum(scipy.optimize.linprog(**programme, method="highs-ds").x.reshape(k, -1), 0)
        rest, run = (x.ravel() for x in np.meshgrid(np.arange(1, s - low + 1), np.arange(1, low + 2), indexing="ij"))
        rest, run = np.append(rest, [0, 1]), np.append(run, [1, 0])  # play without end; none
        share = share * (rest + run)[None, :-1]
        share = np.concatenate([share, np.maximum(1 - share.sum(1, keepdims=True), 0)], axis=1)

        def solve():
            rng = np.random.default_rng(0)
            drawn = (rng.random((few, k, 1)) > np.cumsum(share, axis=1)[None]).sum(-1)
            drawn = np.minimum(drawn, len(rest) - 1)
            idle, plays = rest[drawn], run[drawn]
            phase = np.floor(rng.random((few, k)) * (idle + plays)).astype(int)
            arms, rows = np.arange(k)[None, :], np.arange(few)
            local, total = np.full((few, k), s - 1), np.zeros(few)
            for _ in range(rounds):
                j = phase - idle
                virtual = np.where((idle > 0) & (j == 0), low + idle - 1, np.maximum(low - j, 0))
                virtual = np.where(idle == 0, 0, np.clip(virtual, 0, s - 1))
                score = np.where((plays > 0) & (j >= 0), payoffs[arms, virtual], -1.0)
                best = score.argmax(1)
                played = (np.arange(k)[None, :] == best[:, None]) & (score[rows, best] >= 0)[:, None]
                total += np.where(played, payoffs[arms, local], 0).sum(1)
                rested = np.where(local >= low, np.minimum(local + 1, s - 1), low)
                local = np.where(played, np.where(local >= low, low - 1, np.maximum(local - 1, 0)), rested)
                phase = np.where(phase + 1 >= idle + plays, 0, phase + 1)
            return total / rounds

        return (solve, None), rounds * few

    return {"loop over rounds": prepare}


# ---- Exact planning. Instance: payoffs[k, S], satiation. Answer: certified bounds [lower, upper].


def rlcore_exact(instance):
    """This library's optimal average, both algorithms; what is compiled is compiled in the first call."""
    _jax()
    import jax.numpy as jnp

    from rlcore.lsd import SwitchingBandit
    from rlcore.lsd.exact import optimal_average

    problem = SwitchingBandit(jnp.asarray(instance["payoffs"]), int(instance["satiation"]))

    def prepare(method):
        def solve():
            found = optimal_average(problem, method=method)
            return np.array([found.lower, found.upper])

        solve()
        return (solve, None), 1

    return {method: functools.partial(prepare, method) for method in ("howard", "value_iteration")}


def _jax():
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


SOLVERS = {
    "relaxation": {"rlcore": (rlcore_relaxation, "rlcore"), "SciPy": (scipy_relaxation, "scipy")},
    "simulation": {"rlcore": (rlcore_simulation, "rlcore"), "NumPy": (numpy_simulation, "numpy")},
    "exact": {"rlcore": (rlcore_exact, "rlcore")},
}


if __name__ == "__main__":
    peer.serve(SOLVERS, *sys.argv[1:])
