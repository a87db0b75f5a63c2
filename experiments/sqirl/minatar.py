"""PPO, DQN and deep SQIRL on MinAtar's games with sticky actions, from gymnax: mean returns of their greedy policies.

The form for a GPU, full episodes and as many steps as the released code takes with full-length Atari:

    python -m experiments sqirl.minatar --games Breakout Asterix Freeway SpaceInvaders --steps 10000000 --limit 1000 \\
        --episodes 1 4 16 --seeds 5 --side-by-side
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from envs.gymnax_games import gymnax_game
from experiments import figures
from experiments.reference import Measured
from experiments.sqirl.success import iterations_of
from rlcore.nn.dqn import DQN
from rlcore.nn.perceptron import ActorCritic, Perceptron
from rlcore.nn.ppo import PPO
from rlcore.solver import iterate
from rlcore.sqirl import DeepSqirl, deep_sqirl

TITLE = "PPO, DQN and deep SQIRL on MinAtar with sticky actions: returns of greedy policies by steps (a study)"
PRECISION = "float32"
STICKY = 0.25
DISCOUNT = 0.99
REFERENCES = {}


@dataclasses.dataclass(frozen=True)
class Config:
    """Games; agents beside SQIRL and their steps; SQIRL's k and m; steps per episode; seeds; test episodes."""

    games: tuple[str, ...] = ("Breakout", "Asterix")
    agents: tuple[str, ...] = ("PPO", "DQN")
    steps: int = 100_000
    depths: tuple[int, ...] = (1, 3)
    episodes: tuple[int, ...] = (1, 8)
    limit: int = 100
    seeds: int = 2
    tests: int = 200
    evaluations: int = 8
    hidden: int = 128
    channels: int = 16
    side_by_side: bool = False
    seed: int = 0


QUICK = Config(
    ("Breakout",), ("PPO",), 2048, (1,), (1,), limit=8, seeds=1, tests=16, evaluations=2, hidden=8, channels=2
)


def mean_return(game, act, key, *, limit, tests):
    """Mean undiscounted return of `act(t, observation, key)` over test episodes, float32[]."""
    starts, plays = jax.random.split(key)
    state, seen = jax.vmap(game.reset)(jax.random.split(starts, tests))

    def advance(carry, t):
        def one(state, seen, running, key):
            acts, goes = jax.random.split(key)
            out = game.step(state, act(t, seen, acts), goes)
            over = out.terminal | out.truncated
            return (out.state, out.observation, running & ~over), jnp.where(running, out.reward, 0.0)

        return jax.vmap(one)(*carry, jax.random.split(jax.random.fold_in(plays, t), tests))

    carry = (state, seen, jnp.ones(tests, bool))
    _, rewards = jax.lax.scan(advance, carry, jnp.arange(limit, dtype=jnp.int32))
    return jnp.sum(rewards) / tests


def _seeds(run, keys, side_by_side):
    """Convolutions with weights of their own are slower side by side than one after the other on a CPU."""
    return jax.vmap(run)(keys) if side_by_side else jax.lax.map(run, keys)


@functools.partial(jax.jit, static_argnames=("limit", "tests", "side_by_side"))
def trained(agent, game, keys, iterations, limit, tests, side_by_side):
    """Mean returns [seed, evaluation] of PPO or DQN on the way."""
    test_key = jax.random.key(1)

    def observe(game, state):
        act = lambda t, seen, key: agent.greedy(game, state.params, seen)  # noqa: E731
        return mean_return(game, act, test_key, limit=limit, tests=tests)

    run = lambda key: iterate(agent, game, None, key=key, observe=observe, every=iterations)[1]  # noqa: E731
    return _seeds(run, keys, side_by_side)


@functools.partial(jax.jit, static_argnames=("limit", "tests", "side_by_side"))
def planned(settings, game, keys, limit, tests, side_by_side):
    """Mean returns and steps taken [seed] of deep SQIRL."""

    def run(key):
        learned = deep_sqirl(game, settings, key, steps=limit)
        act = lambda t, seen, key: settings.act(game, learned, t, seen)  # noqa: E731
        return mean_return(game, act, jax.random.key(1), limit=limit, tests=tests), learned.steps

    return _seeds(run, keys, side_by_side)


def run(config):
    """Returns by game, agent and seed; the random policy's too."""
    import xarray as xr

    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    numbers = dict(limit=config.limit, tests=config.tests, side_by_side=config.side_by_side)
    shape = dict(hidden=(config.hidden,), channels=(config.channels,))
    random, planned_return, planned_steps = [], [], []
    steps, returns = {}, {one: [] for one in config.agents}
    for name in config.games:
        game = gymnax_game(f"{name}-MinAtar", sticky=STICKY, limit=config.limit)
        actions = game.num_actions
        draw = lambda t, seen, key, n=actions: jax.random.randint(key, (), 0, n, jnp.int32)  # noqa: E731
        random.append(float(mean_return(game, draw, jax.random.key(2), limit=config.limit, tests=config.tests)))
        agents = {
            "PPO": PPO(ActorCritic(actions, **shape), discount=DISCOUNT),
            "DQN": DQN(Perceptron(actions, uniform=True, **shape), discount=DISCOUNT, total_steps=float(config.steps)),
        }
        for one in config.agents:
            when = iterations_of(agents[one], config.steps, config.evaluations)
            steps[one] = when * agents[one].steps_per_iteration
            returns[one].append(np.asarray(trained(agents[one], game, keys, when, **numbers)))
        for depth in config.depths:
            for episodes in config.episodes:
                network = Perceptron(depth * actions, uniform=True, **shape)
                settings = DeepSqirl(network, discount=DISCOUNT, depth=depth, episodes=episodes)
                found = planned(settings, game, keys, **numbers)
                planned_return.append(np.asarray(found[0]))
                planned_steps.append(np.asarray(found[1]))
    dims = ("game", "k", "m", "seed")
    shape = (len(config.games), len(config.depths), len(config.episodes), config.seeds)
    return xr.Dataset(
        {
            f"{one.lower()}_return": (("game", "seed", f"{one.lower()}_step"), np.stack(returns[one]))
            for one in config.agents
        }
        | {
            "sqirl_return": (dims, np.reshape(planned_return, shape)),
            "sqirl_steps": (dims, np.reshape(planned_steps, shape)),
            "random_return": ("game", np.array(random)),
        },
        {
            "game": list(config.games),
            "k": list(config.depths),
            "m": list(config.episodes),
        }
        | {f"{one.lower()}_step": steps[one] for one in config.agents},
        {"title": TITLE, "agents": list(config.agents), "limit": config.limit, "tests": config.tests},
    )


def measured(data):
    """Last mean returns and their standard errors over seeds, by game and agent."""
    out, seeds = {}, data.sizes["seed"]

    def put(name, values):
        error = float(values.std("seed", ddof=1)) / np.sqrt(seeds) if seeds > 1 else 0.0
        out[name] = Measured(float(values.mean("seed")), error)

    for game in data["game"].values:
        here = data.sel(game=game)
        out[f"{game}, random"] = Measured(float(here["random_return"]), 0.0)
        for agent in data.attrs["agents"]:
            low = agent.lower()
            put(f"{game}, {agent}", here[f"{low}_return"].isel({f"{low}_step": -1}))
        for k in data["k"].values:
            put(f"{game}, SQIRL k = {k}, m = {data['m'].values[-1]}", here["sqirl_return"].sel(k=k).isel(m=-1))
    return out


def plot(data):
    """Returns by steps, a panel per game; SQIRL's points are runs of different m."""
    games = list(data["game"].values)
    with figures.style():
        figure, axes = figures.subplots(1, len(games), width=3.2 * max(2, len(games)), height=3.2)
        for axis, game in zip(axes, games, strict=True):
            here = data.sel(game=game)
            lines = [(a, data[f"{a.lower()}_step"], here[f"{a.lower()}_return"]) for a in data.attrs["agents"]]
            for k in data["k"].values:
                one = here.sel(k=k)
                lines.append((f"SQIRL, $k = {k}$", one["sqirl_steps"].mean("seed"), one["sqirl_return"]))
            for i, (name, steps, returns) in enumerate(lines):
                style = figures.line_style(i) | {"marker": "osD^v"[i % 5], "markersize": 3}
                axis.plot(steps, returns.mean("seed"), label=name, **style)
                low, high = returns.min("seed"), returns.max("seed")
                axis.fill_between(np.asarray(steps), low, high, color=style["color"], alpha=0.15, linewidth=0)
            axis.axhline(float(here["random_return"]), color="0.5", linestyle=":", linewidth=1.2, label="random policy")
            axis.set(xscale="log", xlabel="steps of the game", title=game)
        axes[0].set_ylabel(f"mean return of {data.attrs['limit']} steps [score]")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
        figure.suptitle(
            f"A study: MinAtar with sticky actions (1/4), greedy policies in {data.attrs['tests']} test "
            "episodes;\nbands: all seeds; SQIRL's points are runs of different m",
            fontsize=9,
        )
    return figure
