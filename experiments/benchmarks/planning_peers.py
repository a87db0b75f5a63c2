"""The planners that `experiments.benchmarks.planning` compares, each behind one function, run in a process of its own.

    python -m experiments.benchmarks.planning_peers NAME INSTANCE.npz TOL SECONDS ANSWER.npy

prints one JSON line per method and writes the values found. This file needs NumPy and the one planner it is asked for,
so it runs in any environment that has it.
"""

import functools
import importlib.metadata
import json
import sys
import time

import numpy as np

from experiments.benchmarks import peer

# An instance is a dict of arrays with a leading batch axis L: next_state[L,S,A,B], prob[L,S,A,B], reward[L,S,A],
# discount[L]. A planner maps one to {method: solve}, where solve() -> value[L,S]; what it builds first is not timed.


def _rows(instance, i):
    """One problem as a CSR matrix of (state-action) rows, its rewards and its discount."""
    import scipy.sparse

    next_state, prob = instance["next_state"][i], instance["prob"][i]
    num_states, num_actions, num_outcomes = prob.shape
    starts = np.arange(0, prob.size + 1, num_outcomes)
    matrix = scipy.sparse.csr_matrix((prob.ravel(), next_state.ravel(), starts), (num_states * num_actions, num_states))
    matrix.sum_duplicates()
    return matrix, instance["reward"][i], float(instance["discount"][i])


def quantecon(instance, tol, *, sparse):
    """QuantEcon.py's DiscreteDP; its epsilon/2 is the error of the value."""
    from quantecon.markov import DiscreteDP

    problems = []
    for i in range(len(instance["discount"])):
        matrix, reward, discount = _rows(instance, i)
        num_states, num_actions = reward.shape
        if sparse:
            pairs = np.repeat(np.arange(num_states), num_actions), np.tile(np.arange(num_actions), num_states)
            problems.append(DiscreteDP(reward.ravel(), matrix, discount, *pairs))
        else:
            dense = matrix.toarray().reshape(num_states, num_actions, num_states)
            problems.append(DiscreteDP(reward, dense, discount))
    solve = lambda method: np.stack(  # noqa: E731
        [p.solve(method=method, epsilon=2 * tol, max_iter=1_000_000).v for p in problems]
    )
    return {name: functools.partial(solve, method) for name, method in METHODS.items()}


METHODS = {"MPI": "modified_policy_iteration", "PI": "policy_iteration", "VI": "value_iteration"}


def pymdptoolbox(instance, tol):
    """pymdptoolbox: sparse matrices per action; its epsilon is about the policy, not the value."""
    from mdptoolbox import mdp as toolbox

    problems = []
    for i in range(len(instance["discount"])):
        matrix, reward, discount = _rows(instance, i)
        problems.append(([matrix[a :: reward.shape[1]] for a in range(reward.shape[1])], reward, discount))

    def solve(kind, **options):
        values = []
        for matrices, reward, discount in problems:
            planner = kind(matrices, reward, discount, **options)
            planner.run()
            values.append(planner.V)
        return np.array(values)

    return {
        "MPI": functools.partial(solve, toolbox.PolicyIterationModified, epsilon=tol, max_iter=100_000),
        "VI": functools.partial(solve, toolbox.ValueIteration, epsilon=tol, max_iter=100_000),
        "PI": functools.partial(solve, toolbox.PolicyIteration, max_iter=1000),
    }


def mdpsolver(instance, tol):
    """mdpsolver (C++): nested lists of successors; building its model is not timed.

    A second solve of one model starts from the first one's answer (1000 x 10 x 5: 56 ms, then 0.4 ms), so every solve
    is told to start from value 0 and action 0, as the others do.
    """
    import mdpsolver as library

    num_states = instance["reward"].shape[1]
    problems = []
    for i in range(len(instance["discount"])):
        problem = library.model()
        problem.mdp(
            discount=float(instance["discount"][i]),
            rewards=instance["reward"][i].tolist(),
            tranMatProbs=instance["prob"][i].tolist(),
            tranMatColumns=instance["next_state"][i].tolist(),
        )
        problems.append(problem)
    start = {"initValueVector": [0.0] * num_states, "initPolicy": [0] * num_states}

    def solve(method, parallel):
        for problem in problems:
            problem.solve(algorithm=method, tolerance=tol, parallel=parallel, **start)
        return lambda: np.array([problem.getValueVector() for problem in problems])

    methods = {name: functools.partial(solve, name.lower(), False) for name in ("MPI", "PI", "VI")}
    return methods | {"MPI threads": functools.partial(solve, "mpi", True)}


def jaxdp(instance, tol):
    """jaxdp: dense [A,S',S]; it supplies the sweep, the loop and the stopping rule (sup norm) are ours."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    import chex
    from jaxdp.mdp import MDP
    from jaxdp.planning import ValueIteration

    chex.disable_asserts()  # its checks of values do not run inside loops
    num_states, num_actions = instance["reward"].shape[1:]
    if 16 * num_actions * num_states**2 * len(instance["discount"]) > 4e9:
        raise MemoryError("stores two dense [A,S,S] arrays: more than 4 GB here")
    transition = np.stack(
        [
            _rows(instance, i)[0].toarray().reshape(num_states, num_actions, num_states)
            for i in range(len(instance["discount"]))
        ]
    )
    reward = np.broadcast_to(instance["reward"].transpose(0, 2, 1)[..., None], transition.transpose(0, 2, 1, 3).shape)
    batch = MDP(
        transition=jnp.asarray(transition.transpose(0, 2, 3, 1)),
        reward=jnp.asarray(reward),
        initial=jnp.full(transition.shape[:2], 1 / num_states),
        terminal=jnp.zeros(transition.shape[:2]),
    )

    def one(args):
        mdp, discount = args
        solver = ValueIteration(gamma=discount)

        def body(carry):
            state, _ = carry
            new = solver.update(mdp, state)
            return new, jnp.max(jnp.abs(new.v_val - state.v_val))

        start = (solver.init(mdp), jnp.inf)
        return jax.lax.while_loop(lambda c: c[1] * discount > tol * (1 - discount), body, start)[0].v_val

    run, discounts = jax.jit(lambda *args: jax.lax.map(one, args)), jnp.asarray(instance["discount"])
    return {"VI": lambda: np.asarray(run(batch, discounts))}


def mdpax(instance, tol):
    """mdpax: matrix-free problem class, one host step per sweep; stopping by the largest change."""
    import jax.numpy as jnp
    from mdpax.core.problem import Problem
    from mdpax.solvers.value_iteration import ValueIteration

    if len(instance["discount"]) > 1:
        raise NotImplementedError("compiles anew for every problem object: a batch of 1000 takes hours")
    next_state, prob, reward = (instance[k][0] for k in ("next_state", "prob", "reward"))
    num_states, num_actions, num_outcomes = prob.shape

    class Table(Problem):
        name = "table"

        def _construct_state_space(self):
            return jnp.arange(num_states, dtype=jnp.int32)[:, None]

        def state_to_index(self, state):
            return state[0]

        def _construct_action_space(self):
            return jnp.arange(num_actions, dtype=jnp.int32)[:, None]

        def _construct_random_event_space(self):
            return jnp.arange(num_outcomes, dtype=jnp.int32)[:, None]

        def random_event_probability(self, state, action, random_event):
            return self.prob[state[0], action[0], random_event[0]]

        def transition(self, state, action, random_event):
            return self.next_state[state[0], action[0], random_event[0]][None], self.reward[state[0], action[0]]

    problem = Table()
    discount = float(instance["discount"][0])
    settings = dict(gamma=discount, epsilon=tol, convergence_test="max_diff", verbose=0)
    ValueIteration(problem, **settings)  # switches float64 on, globally
    problem.next_state, problem.prob, problem.reward = (jnp.asarray(x) for x in (next_state, prob, reward))

    # One solver object: its compiled sweep is kept, its values are reset.
    solver = ValueIteration(problem, **settings)
    zero = jnp.zeros(num_states)

    def solve():
        solver.values, solver.iteration = zero, 0
        return np.asarray(solver.solve(max_iterations=100_000).values)[None]

    return {"VI": solve}


def rlcore(instance, tol):
    """This library, through its public functions, preparation of the kernel included in the time."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    from rlcore import planning
    from rlcore.mdp import tabular
    from rlcore.solver import require_converged

    lanes = [
        tabular(*(instance[k][i] for k in ("next_state", "prob", "reward")), discount=instance["discount"][i])
        for i in range(len(instance["discount"]))
    ]
    solvers = {
        "MPI": planning.ModifiedPolicyIteration(),
        "PI": planning.PolicyIteration(),
        "VI": planning.ValueIteration(),
    }
    if len(lanes) == 1:
        one = lanes[0]
        solve = lambda solver: planning.solve_optimal(solver, one, tol=tol, max_steps=100_000)  # noqa: E731
        modes = {name: functools.partial(solve, solver) for name, solver in solvers.items()}
        kernel = jax.block_until_ready(jax.jit(planning.prepare)(one))
        swept = lambda solver: planning.solve_optimal(solver, kernel, tol=tol, max_steps=100_000)  # noqa: E731
        modes |= {f"{name} prepared": functools.partial(swept, solver) for name, solver in solvers.items()}
    else:
        stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *lanes)
        solve = lambda solver, mode: planning.solve_batch(solver, stack, tol=tol, max_steps=100_000, batch=mode)  # noqa: E731
        modes = {
            f"{name} {mode}": functools.partial(solve, solver, mode)
            for name, solver in solvers.items()
            for mode in ("map", "vmap", "bucket")
        }

    def finish(solve):
        solution = jax.block_until_ready(solve())
        return lambda: np.asarray(require_converged(solution).value.value).reshape(len(lanes), -1)

    return {name: functools.partial(finish, solve) for name, solve in modes.items()}


PEERS = {
    "rlcore": (rlcore, "rlcore"),
    "QuantEcon sparse": (functools.partial(quantecon, sparse=True), "quantecon"),
    "QuantEcon dense": (functools.partial(quantecon, sparse=False), "quantecon"),
    "pymdptoolbox": (pymdptoolbox, "pymdptoolbox"),
    "mdpsolver": (mdpsolver, "mdpsolver"),
    "jaxdp": (jaxdp, "jaxdp"),
    "mdpax": (mdpax, "mdpax"),
}


def main(name: str, path: str, tol: float, seconds: float, answers: str) -> None:
    """Time every method of one planner on one instance."""
    build, package = PEERS[name]
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        version = "source"
    with np.load(path) as data:
        instance = dict(data)
    started = time.perf_counter()
    methods = build(instance, tol)
    report = {"peer": name, "version": version, "build_s": time.perf_counter() - started}
    for method, solve in methods.items():
        try:
            value, first, times = peer.repeat(solve, seconds)
            value = value() if callable(value) else value
            np.save(f"{answers}.{method.replace(' ', '_')}.npy", np.asarray(value, np.float64))
            row = {"method": method, "first_s": first, "median_s": float(np.median(times)), "min_s": min(times)}
            row["repeats"] = len(times)
        except Exception as error:  # a peer's failure is a row of the table, not the end of it
            row = {"method": method, "error": f"{type(error).__name__}: {str(error)[:120]}"}
        print(json.dumps(report | row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
