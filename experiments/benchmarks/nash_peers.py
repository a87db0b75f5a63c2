"""The solvers that `experiments.benchmarks.nash` compares, each behind one function, run in a process of its own.

    python -m experiments.benchmarks.nash_peers KIND NAME INSTANCE.npz SECONDS ANSWER

prints one JSON line per method and writes what each found. A solver maps an instance to {method: prepare}; prepare()
builds or compiles and returns (solve, units): solve() -> answer, and `units` is the number of game-updates or games in
one call, so that a slow peer may do fewer. This file needs NumPy and the one library it is asked for.
"""

import concurrent.futures
import functools
import importlib.metadata
import json
import os
import sys
import time

import numpy as np

from experiments.benchmarks import peer

# ---- Updates. Instance: preference[G,n,n], reference[G,n], temperature[S], rate[S], updates, slow_updates.
# Answer: the duality gap after 0, 1, ... updates, float[S, games, updates + 1].
ALGORITHMS = ("Online IPO 1 (OMD)", "Online IPO 2", "Nash-MD", "Nash-MD-PG", "EGPO")


def rlcore_updates(instance):
    """This library: one program per algorithm, all games together, three settings one after another."""
    jax = _jax()
    import jax.numpy as jnp

    from experiments.nash.egpo_simulations import make_solver
    from rlcore.nash import PreferenceGame, observe_gap
    from rlcore.solver import iterate

    updates = int(instance["updates"])
    games = jnp.asarray(instance["preference"]), jnp.asarray(instance["reference"])
    settings = jnp.asarray(instance["temperature"]), jnp.asarray(instance["rate"])

    def gaps(algorithm, settings, games):
        def play(temperature, rate):
            solver = make_solver(algorithm, temperature, rate)

            def one(preference, reference):
                problem = PreferenceGame(preference, reference, temperature)
                return iterate(solver, problem, updates, observe=observe_gap)[1]

            return jax.vmap(one)(*games)

        return jax.lax.map(lambda setting: play(*setting), settings)

    def prepare(algorithm):
        program = jax.jit(functools.partial(gaps, algorithm)).lower(settings, games).compile()
        solve = lambda: jax.block_until_ready(program(settings, games))  # noqa: E731
        return solve, updates * games[1].shape[0] * settings[0].size

    return {name: functools.partial(prepare, name) for name in ALGORITHMS}


def _normalised(logits):
    top = logits - logits.max(-1, keepdims=True)
    return top - np.log(np.exp(top).sum(-1, keepdims=True))


def _times(payoff, p):
    return np.matmul(payoff, p[..., None])[..., 0]


def _numpy_gap(payoff, policy, reference, temperature):
    best = _normalised(reference + _times(payoff, np.exp(policy)) / temperature)
    return 2 * temperature * (np.exp(policy) * (policy - best)).sum(-1)


def numpy_updates(instance):
    """The same closed-form steps on all games together, one Python loop over the updates."""
    payoff, reference = instance["preference"] - 0.5, instance["reference"]
    n, updates = reference.shape[-1], int(instance["slow_updates"])

    def step(algorithm, policy, tau, rate):
        size, mixture = 4 * rate / (n * tau), 2 * rate / n

        def mirror(opponent):
            pulled = (1 - size * tau) * policy + size * tau * reference
            return _normalised(pulled + size * _times(payoff, opponent))

        if algorithm == "Online IPO 1 (OMD)":
            return mirror(np.exp(policy))
        if algorithm == "EGPO":
            return mirror(np.exp(mirror(np.exp(policy))))
        mixed = np.exp(_normalised((1 - mixture) * policy + mixture * reference))
        if algorithm == "Nash-MD":
            return mirror(mixed)
        p, ratio = np.exp(policy), policy - reference
        if algorithm == "Online IPO 2":
            error = ratio - _times(payoff, p) / tau
            return _normalised(policy - rate * 4 * p * (error - (p * error).sum(-1, keepdims=True)))
        weight = _times(payoff, mixed) - tau * ratio
        return _normalised(policy + rate * p * (weight - (p * weight).sum(-1, keepdims=True)))

    def solve(algorithm):
        found = np.empty((len(instance["temperature"]), len(reference), updates + 1))
        for s, (tau, rate) in enumerate(zip(instance["temperature"], instance["rate"], strict=True)):
            policy = reference
            for t in range(updates + 1):
                found[s, :, t] = _numpy_gap(payoff, policy, reference, tau)
                if t < updates:
                    policy = step(algorithm, policy, tau, rate)
        return found

    units = updates * len(reference) * len(instance["temperature"])
    return {name: lambda name=name: (functools.partial(solve, name), units) for name in ALGORITHMS}


def pytorch_updates(instance):
    """Eager PyTorch as the released simulations loop: one game, autograd on each loss, SGD, the gap at every update.

    The gap is the difference of the two game values that best responses reach. In float64, so that answers compare.
    """
    import torch

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    preference, start = torch.tensor(instance["preference"][0]), torch.tensor(instance["reference"][0])
    n, updates = len(start), int(instance["slow_updates"])

    def value(first, second, tau):
        """The regularised preference of one policy over another, by log-probabilities."""
        p, q = first.exp(), second.exp()
        penalty = tau * ((p * (first - start)).sum() - (q * (second - start)).sum())
        return p @ preference @ q - penalty

    def gap(theta, tau):
        with torch.no_grad():
            policy = torch.log_softmax(theta, 0)
            best = torch.log_softmax(start + preference @ policy.exp() / tau, 0)
            return (value(best, policy, tau) - value(policy, best, tau)).item()

    def uniform_pairs(theta, tau, opponent):
        ratio = torch.log_softmax(theta, 0) - start
        wins = preference @ opponent / tau
        error = ratio[:, None] - ratio[None, :] - (wins[:, None] - wins[None, :])
        return (error**2).mean()

    def own_pairs(theta, tau):
        policy = torch.log_softmax(theta, 0)
        weight, ratio = policy.detach().exp(), policy - start
        error = ratio[:, None] - ratio[None, :] - (preference - 0.5) / tau
        return (weight[:, None] * weight[None, :] * error**2).sum()

    def solve_one(algorithm, tau, rate):
        theta = start.clone().requires_grad_()
        optimiser = torch.optim.SGD([theta], lr=rate)
        mixture, gaps = 2 * rate / n, [gap(theta, tau)]

        def descend(loss):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

        for _ in range(updates):
            policy = torch.log_softmax(theta.detach(), 0)
            mixed = torch.softmax((1 - mixture) * policy + mixture * start, 0)
            if algorithm == "Online IPO 1 (OMD)":
                descend(uniform_pairs(theta, tau, policy.exp()))
            elif algorithm == "Online IPO 2":
                descend(own_pairs(theta, tau))
            elif algorithm == "Nash-MD":
                descend(uniform_pairs(theta, tau, mixed))
            elif algorithm == "Nash-MD-PG":
                own = torch.log_softmax(theta, 0)
                weight = preference @ mixed - 0.5 - tau * (own.detach() - start)
                descend(-(own.exp() * weight).sum())
            else:
                here = theta.detach().clone()
                descend(uniform_pairs(theta, tau, policy.exp()))
                half_step = torch.softmax(theta.detach(), 0)
                with torch.no_grad():
                    theta.copy_(here)
                descend(uniform_pairs(theta, tau, half_step))
            gaps.append(gap(theta, tau))
        return gaps

    def solve(algorithm):
        settings = zip(instance["temperature"], instance["rate"], strict=True)
        return np.array([[solve_one(algorithm, float(tau), float(rate))] for tau, rate in settings])

    units = updates * len(instance["temperature"])
    return {name: lambda name=name: (functools.partial(solve, name), units) for name in ALGORITHMS}


# ---- Equilibria. Instance: preference[G,n,n], reference[G,n], temperature[G], slow_games.
# Answer: log-policies float[games, n] of the first games; NaN where a solver does not apply.


def rlcore_equilibria(instance):
    """This library's certified equilibria: all lanes together, or blocks of 32 lanes, also sorted by temperature."""
    jax = _jax()
    import jax.numpy as jnp

    from rlcore.nash import equilibrium
    from rlcore.solver import require_converged

    games = tuple(jnp.asarray(instance[k]) for k in ("preference", "reference", "temperature"))
    count = games[2].size

    def sorted_map(*games):
        # Colder games need more steps; a block runs to its slowest lane.
        order = jnp.argsort(games[2])
        solution = jax.lax.map(lambda g: equilibrium(*g), jax.tree.map(lambda x: x[order], games), batch_size=32)
        return jax.tree.map(lambda x: x[jnp.argsort(order)], solution)

    programs = {"one by one": equilibrium}
    if count > 1:
        programs = {
            "vmap": jax.vmap(equilibrium),
            "blocks of 32": lambda *games: jax.lax.map(lambda g: equilibrium(*g), games, batch_size=32),
            "sorted blocks of 32": sorted_map,
        }
    else:
        games = tuple(x[0] for x in games)

    def prepare(program):
        compiled = jax.jit(program).lower(*games).compile()
        solve = lambda: jax.block_until_ready(compiled(*games))  # noqa: E731
        return lambda: _found(require_converged(solve()).value, count), count

    return {name: functools.partial(prepare, program) for name, program in programs.items()}


def _found(value, count):
    return np.asarray(value).reshape(count, -1)


def _residual(payoff, reference, tau, policy):
    residual = policy - reference - _times(payoff, np.exp(policy)) / tau
    return residual - residual.mean(-1, keepdims=True)


def _newton(payoff, reference, tau, max_steps=400):
    """Damped Newton from the reference on games [m, n, n] with tau[m, 1]; finished games leave the batch."""
    found = reference.copy()
    left = np.arange(len(found))
    n = found.shape[1]
    for _ in range(max_steps):
        residual = _residual(payoff[left], reference[left], tau[left], found[left])
        size = np.linalg.norm(residual, axis=1)
        far = size > 1e-12 * (1 + np.abs(found[left] - reference[left]).max(1))
        left, residual, size = left[far], residual[far], size[far]
        if not left.size:
            break
        a, mu, t, policy = payoff[left], reference[left], tau[left], found[left]
        p = np.exp(policy)
        product = (a - _times(a, p)[..., None]) * p[:, None, :]
        jacobian = np.eye(n) - (product - product.mean(1, keepdims=True)) / t[..., None]
        direction = np.linalg.solve(jacobian, -residual[..., None])[..., 0]
        direction -= (p * direction).sum(1, keepdims=True)
        length, waiting, new = np.ones((len(left), 1)), np.ones(len(left), bool), policy.copy()
        for _ in range(20):
            trial = _normalised(policy[waiting] + length[waiting] * direction[waiting])
            norm = np.linalg.norm(_residual(a[waiting], mu[waiting], t[waiting], trial), axis=1)
            good = norm <= (1 - length[waiting, 0] / 4) * size[waiting]
            places = np.flatnonzero(waiting)
            new[places[good]] = trial[good]
            waiting[places[good]] = False
            length[waiting] /= 2
            if not waiting.any():
                break
        found[left] = new
        left = left[~waiting]  # where no length helps, rounding has the last word
    return found


def numpy_equilibria(instance):
    """The same Newton method in NumPy: on all games together, and in a loop over games."""
    payoff, reference = instance["preference"] - 0.5, instance["reference"]
    tau = instance["temperature"][:, None]
    few = min(int(instance["slow_games"]), len(tau))

    def loop():
        return np.concatenate([_newton(payoff[i : i + 1], reference[i : i + 1], tau[i : i + 1]) for i in range(few)])

    methods = {"Newton, loop": lambda: (loop, few)}
    if len(tau) > 1:
        methods["Newton, batch"] = lambda: (lambda: _newton(payoff, reference, tau), len(tau))
    return methods


def scipy_equilibria(instance):
    """scipy.optimize.root on the logits over the reference, with the exact Jacobian; it damps in its own way."""
    from scipy.optimize import root

    payoff, reference, tau = instance["preference"] - 0.5, instance["reference"], instance["temperature"]
    few, n = min(int(instance["slow_games"]), len(tau)), reference.shape[1]

    def one(a, mu, t):
        def function(logits):
            p = np.exp(_normalised(mu + logits))
            rates = a @ p
            residual = logits - rates / t
            jacobian = np.eye(n) - (a - rates[:, None]) * p[None, :] / t
            return residual, jacobian

        return _normalised(mu + root(function, np.zeros(n), jac=True, tol=1e-14).x)

    return {"root, hybr": lambda: (lambda: np.array([one(*g) for g in zip(payoff, reference, tau)][:few]), few)}  # noqa: B905


def pygambit_equilibria(instance):
    """pygambit's logit quantal response equilibria: of games with a uniform reference and temperature above .05."""
    import pygambit

    preference, reference = instance["preference"], instance["reference"]
    tau = instance["temperature"]
    uniform = (np.ptp(reference, axis=1) == 0) & (tau >= 0.05)
    chosen = np.flatnonzero(uniform)[: max(1, int(instance["slow_games"]) // 20)]
    if not chosen.size or reference.shape[1] > 20:
        raise ValueError("no small game with a uniform reference and temperature above .05")

    def solve():
        found = np.full((chosen[-1] + 1, reference.shape[1]), np.nan)
        for i in chosen:
            game = pygambit.Game.from_arrays(preference[i], preference[i].T)
            (point,) = pygambit.qre.logit_solve_lambda(game, [1 / tau[i]], first_step=1e-3)
            found[i] = [float(point.profile[s]) for s in next(iter(game.players)).strategies]
        return np.log(found)

    return {"logit_solve_lambda": lambda: (solve, chosen.size)}


# ---- Training. Instance: seeds, steps. Answer: final duality gaps float[seeds].


def rlcore_training(instance):
    """One method of the deep text game, Nash-MD-PG at mixture .125: one seed, then all, as lanes or on two threads."""
    jax = _jax()
    import jax.numpy as jnp

    from envs.text import bigram_text
    from experiments.nash.deep_text import METHODS, Config
    from rlcore.nash import equilibrium
    from rlcore.nash.deep import DeepNash, train
    from rlcore.nn.transformer import Transformer

    exact, steps, settings = bigram_text(0), int(instance["steps"]), Config()
    plain, game = exact.game(), exact.astype(jnp.float32)
    star = equilibrium(plain.preference, plain.reference_logits, plain.temperature).value.astype(jnp.float32)
    objective, options = METHODS["Nash-MD-PG .125"]
    solver = DeepNash(objective, Transformer(6, 4), settings.learning_rate, float(steps), **options)

    def gaps(keys):
        one = lambda key: train(solver, game, star, steps, key, every=settings.every)[1]["gap"][-1]  # noqa: E731
        return jax.vmap(one)(keys)

    def prepare(count):
        keys = jax.random.split(jax.random.key(0), count)
        program = jax.jit(gaps).lower(keys).compile()
        return lambda: np.asarray(program(keys)), count

    def prepare_threads(count):
        keys = jax.random.split(jax.random.key(0), count)
        program = jax.jit(gaps).lower(keys[:1]).compile()

        def solve():
            # A running program lets other threads work: one seed uses one core.
            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                parts = pool.map(lambda i: np.asarray(program(keys[i : i + 1])), range(count))
                return np.concatenate(list(parts))

        return solve, count

    seeds = int(instance["seeds"])
    return {
        "1 seed": functools.partial(prepare, 1),
        f"{seeds} seeds, vmap": functools.partial(prepare, seeds),
        f"{seeds} seeds, a thread per core": functools.partial(prepare_threads, seeds),
    }


# ---- The whole table in a fresh process. Instance: updates[S], temperature[S], rate[S], preference, reference, rows.
# Answer: the gap float[S, algorithms, games, rows].


def rlcore_table(instance):
    """All five algorithms in one program, so that one compilation does; settings one after another."""
    jax = _jax()
    import jax.numpy as jnp

    from experiments.nash.egpo_simulations import make_solver
    from rlcore.nash import PreferenceGame, observe_gap
    from rlcore.solver import iterate

    games = jnp.asarray(instance["preference"]), jnp.asarray(instance["reference"])
    settings = tuple(jnp.asarray(instance[k]) for k in ("temperature", "rate", "updates"))
    fractions = np.linspace(0, 1, int(instance["rows"]))

    def table(settings, games):
        def at(setting):
            temperature, rate, updates = setting
            steps = jnp.round(jnp.asarray(fractions) * updates.astype(float)).astype(int)

            def play(algorithm):
                solver = make_solver(algorithm, temperature, rate)
                one = lambda p, r: iterate(  # noqa: E731
                    solver, PreferenceGame(p, r, temperature), None, observe=observe_gap, every=steps
                )[1]
                return jax.vmap(one)(*games)

            return jnp.stack([play(algorithm) for algorithm in ALGORITHMS])

        return jax.lax.map(at, settings)

    def prepare():
        program = jax.jit(table).lower(settings, games).compile()
        units = int(instance["updates"].sum()) * len(ALGORITHMS) * games[1].shape[0]
        return lambda: np.asarray(program(settings, games)), units

    return {"five algorithms, three temperatures": prepare}


def _jax():
    """JAX in float64, with a cache of programs only where the environment asks for one."""
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


SOLVERS = {
    "table": {"rlcore": (rlcore_table, "rlcore")},
    "updates": {
        "rlcore": (rlcore_updates, "rlcore"),
        "PyTorch": (pytorch_updates, "torch"),
        "NumPy": (numpy_updates, "numpy"),
    },
    "equilibria": {
        "rlcore": (rlcore_equilibria, "rlcore"),
        "NumPy": (numpy_equilibria, "numpy"),
        "SciPy": (scipy_equilibria, "scipy"),
        "pygambit": (pygambit_equilibria, "pygambit"),
    },
    "training": {"rlcore": (rlcore_training, "rlcore")},
}


def main(kind: str, name: str, path: str, seconds: float, answers: str) -> None:
    """Time every method of one solver on one instance; with `seconds` 0 each is called once, and that is its time."""
    build, package = SOLVERS[kind][name]
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        version = "source"
    with np.load(path) as data:
        instance = dict(data)
    started = time.perf_counter()
    methods = build(instance)
    report = {"peer": name, "version": version, "build_s": time.perf_counter() - started}
    for number, (method, prepare) in enumerate(methods.items()):
        try:
            started = time.perf_counter()
            solve, units = prepare()
            compiled = time.perf_counter() - started
            if seconds:
                value, _, times = peer.repeat(solve, seconds)
            else:
                started = time.perf_counter()
                value = solve()
                times = [time.perf_counter() - started]
            place = f"{answers}.{number}.npy"
            np.save(place, np.asarray(value, np.float64))
            row = {"method": method, "compile_s": compiled, "median_s": float(np.median(times)), "min_s": min(times)}
            row |= {"repeats": len(times), "units": int(units), "answer": place, "load": os.getloadavg()[0]}
            row["processor_s"] = time.process_time()
        except Exception as error:  # a peer's failure is a row of the table, not the end of it
            row = {"method": method, "error": f"{type(error).__name__}: {str(error)[:120]}"}
        print(json.dumps(report | row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), sys.argv[5])
