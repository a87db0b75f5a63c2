"""CartPole with a changed pole and force: PEVI and R2PVI from offline data, with random Fourier features."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from envs.gymnax_adapter import episodes
from experiments import figures
from experiments.reference import Measured
from rlcore.robust import Features, OfflineData, Rules, act, pevi, r2pvi

TITLE = "CartPole with another pole length or force: PEVI and R2PVI from offline data, no ground truth (a study)"
PRECISION = "float32"
ENVIRONMENT = "CartPole-v1"
SCALE = (1.0, 1.0, 0.1, 1.0)  # of position, speed, angle, angular speed
RANDOM_SHARE = 0.5  # of the behaviour's actions; the others push under the falling pole
PENALTY, RIDGE = 0.1, 0.1
MASS_POLE = 0.1
LEARNERS = ("PEVI", "R2PVI-TV, 1", "R2PVI-TV, 5", "R2PVI-TV, 20", "R2PVI-KL, 5", "R2PVI-KL, 20")
REFERENCES = {}  # a study: nobody's numbers


@dataclasses.dataclass(frozen=True)
class Config:
    """Data sets of `num_trajectories` episodes of `horizon` steps (of 0.02 s); features per action; test episodes."""

    num_datasets: int = 10
    num_trajectories: int = 500
    horizon: int = 100
    num_features: int = 64
    num_episodes: int = 200
    lengths: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
    forces: tuple[float, ...] = (2.0, 3.0, 5.0, 10.0, 20.0, 40.0)
    learners: tuple[str, ...] = LEARNERS


QUICK = Config(1, 100, 40, 24, 100, (0.1, 0.5, 4.0), (2.0, 10.0, 40.0), ("PEVI", "R2PVI-TV, 5"))


def _fourier(frequencies, phases, state):
    # 1 + cos >= 0 and normalised: on the simplex, as the penalty and the adversary per factor suppose.
    wave = 1 + jnp.cos(jnp.matmul(frequencies, state[:4] / jnp.asarray(SCALE)) + phases) + 1e-3
    wave = wave / jnp.sum(wave)
    none = jnp.zeros_like(wave)
    ended = jnp.ones(1)
    running = jnp.stack([jnp.concatenate([wave, none, 0 * ended]), jnp.concatenate([none, wave, 0 * ended])])
    over = jnp.concatenate([none, none, ended])
    return jnp.where(state[4] > 0, over[None], running)


def _rewarded(step, state):
    return jnp.broadcast_to(1 - state[4], (2,))


def fourier_features(key, num_features, horizon):
    """Random Fourier features of the four coordinates, a block per action, and one feature of ended episodes."""
    own, other = jax.random.split(key)
    frequencies = jax.random.normal(own, (num_features, 4))
    phases = jax.random.uniform(other, (num_features,), maxval=2 * np.pi)
    partial = jax.tree_util.Partial
    return Features(partial(_fourier, frequencies, phases), partial(_rewarded), horizon)


def behaviour(step, observations, key):
    """A sensible push, or a random one."""
    own, other = jax.random.split(key)
    sensible = observations[:, 2] + 0.5 * observations[:, 3] + 0.1 * observations[:, 1] > 0
    random = jax.random.bernoulli(own, 0.5, sensible.shape)
    mixed = jnp.where(jax.random.bernoulli(other, RANDOM_SHARE, sensible.shape), random, sensible)
    return mixed.astype(jnp.int32)


def offline(played):
    """Episodes as trajectories: an ended episode stays in a state of its own, worth nothing."""
    over = jnp.asarray(1 - np.asarray(played.alive, np.float32))[..., None]
    states = jnp.concatenate([jnp.where(over > 0, 0, jnp.asarray(played.observations)), over], axis=-1)
    return OfflineData(states, jnp.asarray(played.actions), jnp.asarray(played.rewards))


def rules_of(name):
    """The learner's rules; the least next value is that of an ended episode, 0."""
    return Rules(norm="ellipsoid", own_rewards=True) if name == "PEVI" else Rules(least=0.0)


@functools.partial(jax.jit, static_argnames="name")
def learn(data, features, *, name):
    """The estimate of a learner by name."""
    if name == "PEVI":
        return pevi(data, features, None, PENALTY, RIDGE, rules=rules_of(name))
    kind, level = name.removeprefix("R2PVI-").split(", ")
    return r2pvi(
        data, features, None, kind.lower(), float(level), PENALTY, RIDGE, centred=kind == "KL", rules=rules_of(name)
    )


@functools.cache
def greedy_policy(name):
    """The policy `(step, observations, key, estimate, features) -> actions`; one function per kind of rules."""
    rules = rules_of(name)

    def policy(step, observations, key, estimate, features):
        running = jnp.concatenate([observations, jnp.zeros_like(observations[:, :1])], axis=1)
        return act(estimate, features, step, running, rules)

    return policy


def run(config):
    """Mean undiscounted return by data set, learner and changed parameter; that of the behaviour too."""
    import xarray as xr

    changes = [
        *({"length": x, "polemass_length": MASS_POLE * x} for x in config.lengths),
        *({"force_mag": x} for x in config.forces),
    ]
    test_key = jax.random.key(10_000)

    def returns(policy, change, *arguments):
        played = episodes(ENVIRONMENT, change, policy, test_key, config.num_episodes, config.horizon, arguments)
        return float(np.asarray(played.rewards).sum(axis=1).mean())

    found = np.zeros((config.num_datasets, len(config.learners), len(changes)))
    zero = np.zeros((config.num_datasets, len(config.learners)))
    for dataset in range(config.num_datasets):
        feature_key, data_key = jax.random.split(jax.random.key(dataset))
        features = fourier_features(feature_key, config.num_features, config.horizon)
        data = offline(episodes(ENVIRONMENT, {}, behaviour, data_key, config.num_trajectories, config.horizon))
        for i, name in enumerate(config.learners):
            estimate = learn(data, features, name=name)
            policy = greedy_policy("PEVI" if name == "PEVI" else "R2PVI")
            zero[dataset, i] = float(estimate.zero_rows.mean())
            found[dataset, i] = [returns(policy, change, estimate, features) for change in changes]
    base = [returns(behaviour, change) for change in changes]
    split = len(config.lengths)
    return xr.Dataset(
        {
            "by_length": (("dataset", "learner", "length"), found[:, :, :split]),
            "by_force": (("dataset", "learner", "force"), found[:, :, split:]),
            "behaviour_by_length": (("length",), np.array(base[:split])),
            "behaviour_by_force": (("force",), np.array(base[split:])),
            "zero_rows": (("dataset", "learner"), zero),
        },
        {"learner": list(config.learners), "length": list(config.lengths), "force": list(config.forces)},
        {"title": TITLE, "horizon": config.horizon},
    )


def measured(data):
    """Returns at the trained parameters and at the ends, means over data sets with two standard errors."""
    out, n = {}, data.sizes["dataset"]
    for learner in data["learner"].values:
        for axis, unit in (("length", "m"), ("force", "N")):
            for value in (data[axis].values[0], data[axis].values[-1]):
                here = data[f"by_{axis}"].sel({"learner": learner, axis: value})
                name = f"return, {learner}, {axis} {value:g} {unit}"
                out[name] = Measured(here.mean().item(), float(2 * here.std() / np.sqrt(n)))
        here = data["by_length"].sel(learner=learner, length=0.5)
        out[f"return, {learner}, as trained"] = Measured(here.mean().item(), float(2 * here.std() / np.sqrt(n)))
        out[f"share of zero rows, {learner}"] = Measured(data["zero_rows"].sel(learner=learner).mean().item(), 0.0)
    return out


def plot(data):
    """Return against the half-length of the pole and against the force; bars are two standard errors over data sets."""
    n, horizon = data.sizes["dataset"], data.attrs["horizon"]
    trained = {"length": 0.5, "force": 10.0}
    labels = {"length": "half-length of the pole in the test [m]", "force": "force of a push in the test [N]"}
    with figures.style():
        figure, axes = figures.subplots(1, 2, height=3.2, sharey=True)
        for axis, name in zip(axes, ("length", "force"), strict=True):
            values = data[name].values
            for i, learner in enumerate(data["learner"].values):
                rows = data[f"by_{name}"].sel(learner=learner)
                place = values * (1 + 0.015 * (i - 2))
                error = 2 * rows.std("dataset") / np.sqrt(n)
                axis.errorbar(place, rows.mean("dataset"), error, label=learner, capsize=2, **figures.line_style(i))
            axis.plot(values, data[f"behaviour_by_{name}"], color="grey", linewidth=1.0, label="behaviour")
            axis.axvline(trained[name], color="grey", linewidth=0.8, linestyle=":")
            axis.set(xscale="log", xlabel=labels[name], ylim=(0, horizon * 1.05))
            axis.set_xticks(values, [f"{x:g}" for x in values])
            axis.minorticks_off()
        axes[0].set_ylabel(f"steps until the fall, of {horizon}")
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=4)
        figure.suptitle(
            f"A study without ground truth: {n} data sets, trained at the dotted line; numbers are levels", fontsize=9
        )
    return figure
