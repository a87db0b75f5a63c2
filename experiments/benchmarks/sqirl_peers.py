"""The solvers that `experiments.benchmarks.sqirl` compares, each behind one function, run in a process of its own.

    python -m experiments.benchmarks.sqirl_peers KIND NAME INSTANCE.npz SECONDS ANSWER

prints one JSON line per method and writes what each found. A solver maps an instance to {method: prepare}; prepare()
builds or compiles and returns ((solve, bytes), units): solve() -> answer, `units` the number of analyses, environment
steps or searches in one call, `bytes` the memory that the compiled program takes beside its inputs, None where unknown.
Peers read arrays alone and share no code with rlcore.
"""

import sys

import numpy as np

from experiments.benchmarks import peer

# ---- Analysis. Instance: next_state, prob, reward, terminal [S,A,B], initial[S], horizon, stickiness, max_k, and the
# name's arguments: size. Answer: optimal and random return, and J_k for k = 1..max_k.


def rlcore_analysis(instance):
    """This library: `analyze`, all rungs in one program."""
    jax = _jax()
    from envs import make
    from rlcore.episodic import episodic
    from rlcore.mdp import sticky
    from rlcore.sqirl import analyze_episodic

    problem = sticky(make("minigrid_empty", size=int(instance["size"])), float(instance["stickiness"]))
    one, max_k = episodic(problem), int(instance["max_k"])

    leaves, kind = jax.tree.flatten(one)

    def whole(*leaves):
        found = analyze_episodic(jax.tree.unflatten(kind, leaves), max_k=max_k)
        both = jax.numpy.stack([found.optimal_return, found.random_return])
        return jax.numpy.concatenate([both, found.returns_by_k])

    return {"one program": lambda: (peer.compiled(whole, *leaves), 1)}


def numpy_analysis(instance):
    """The same ladder in NumPy, a whole table of values per rung; ties relative, the worst of tied actions."""
    next_state, initial = instance["next_state"], instance["initial"]
    horizon, rho, max_k = int(instance["horizon"]), float(instance["stickiness"]), int(instance["max_k"])
    states, actions = next_state.shape[:2]

    def backup(value, t):
        """Q[S, before, chosen] from V[S, before] of the next step: the executed action is what is remembered."""
        onward = np.where(instance["terminal"], 0.0, value[next_state, np.arange(actions)[None, :, None]])
        q = (instance["prob"] * (instance["reward"] + onward)).sum(-1)
        both = (1 - rho) * q[:, None, :] + rho * q[:, :, None]
        return both if t else np.broadcast_to(q[:, None, :], both.shape)

    def returns(choose):
        value, table = np.zeros((states, actions)), []
        for t in reversed(range(horizon)):
            q = backup(value, t)
            value = choose(t, q)
            table.append(q)
        return float(initial @ value[:, 0]), np.stack(table[::-1])

    def solve():
        best, _ = returns(lambda t, q: q.max(-1))
        random, q = returns(lambda t, q: q.mean(-1))
        found = [best, random]
        for _ in range(max_k):
            top = q.max(-1, keepdims=True)
            tied = q >= top - 1e-9 * np.maximum(np.abs(top), np.abs(q))
            found.append(returns(lambda t, one, tied=tied: np.where(tied[t], one, np.inf).min(-1))[0])
            value = np.concatenate([q.max(-1)[1:], np.zeros((1, states, actions))])
            q = np.stack([backup(value[t], t) for t in range(horizon)])
        return np.array(found)

    return {"tables": lambda: ((solve, None), 1)}


# ---- PPO. Instance: arrays as above of the problem that the peer learns; problems, steps, seeds, few; best, random.
# Answer: exact returns of the greedy policy on that problem, by seed.


def rlcore_ppo(instance):
    """This library: all problems and seeds by one program on blocks of eight, with 20 exact evaluations or one."""
    jax = _jax()
    import functools

    from envs.effective_horizon import pilot_problems
    from experiments.lanes import blockwise
    from experiments.sqirl.success import all_sticky, iterations_of, learner
    from rlcore.episodic import stacked
    from rlcore.nn.learning_curve import learning_curve

    names, steps, seeds = tuple(instance["problems"].tolist()), int(instance["steps"]), int(instance["seeds"])
    stack = stacked(all_sticky(pilot_problems(names).values()))
    agent = learner("PPO", stack, steps)
    keys = jax.numpy.tile(jax.random.split(jax.random.key(0), seeds), len(names))
    lanes = jax.tree.map(lambda x: jax.numpy.repeat(x, seeds, axis=0), stack), keys
    place = seeds * names.index(str(instance["learned"]))

    def prepare(evaluations):
        at = iterations_of(agent, steps, evaluations)
        run = blockwise(lambda problem, key: learning_curve(agent, problem, key, at).final, lanes)
        units = len(names) * seeds * int(at[-1]) * agent.steps_per_iteration
        return (lambda: run()[place : place + seeds], None), units

    ways = {"20 exact evaluations": 20, "one exact evaluation": 1}
    return {f"{len(names)} x {seeds}, {way}": functools.partial(prepare, n) for way, n in ways.items()}


def stable_baselines_ppo(instance):
    """Stable-Baselines3 with the same settings on one problem, eight environments; PyTorch on one thread and on all."""
    import gymnasium
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    next_state, prob, reward = (instance[name] for name in ("next_state", "prob", "reward"))
    terminal, horizon, rho = instance["terminal"], int(instance["horizon"]), float(instance["stickiness"])
    states, actions = next_state.shape[:2]
    levels = np.cumsum(prob, axis=-1)

    def show(state, before, t):
        seen = np.zeros(states + actions + 1, np.float32)
        seen[state] = seen[states + before] = 1
        seen[-1] = t / horizon
        return seen

    class World(gymnasium.Env):
        """The sticky problem; the end of the horizon is terminal."""

        observation_space = gymnasium.spaces.Box(0, 1, (states + actions + 1,), np.float32)
        action_space = gymnasium.spaces.Discrete(actions)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.state, self.before, self.t = int(instance["initial"].argmax()), 0, 0
            return show(self.state, self.before, self.t), {}

        def step(self, action):
            if self.t > 0 and self.np_random.random() < rho:
                action = self.before
            outcome = int((self.np_random.random() >= levels[self.state, action]).sum())
            outcome = min(outcome, prob.shape[-1] - 1)
            gain, over = reward[self.state, action, outcome], terminal[self.state, action, outcome]
            self.state, self.before, self.t = int(next_state[self.state, action, outcome]), int(action), self.t + 1
            return show(self.state, self.before, self.t), float(gain), bool(over or self.t >= horizon), False, {}

    def exact(model):
        """The greedy policy's return, by a sweep per step."""
        value = np.zeros((states, actions))
        for t in reversed(range(horizon)):
            seen = np.stack([show(s, b, t) for s in range(states) for b in range(actions)])
            chosen = model.predict(seen, deterministic=True)[0].reshape(states, actions)
            onward = np.where(terminal, 0.0, value[next_state, np.arange(actions)[None, :, None]])
            q = (prob * (reward + onward)).sum(-1)
            both = (1 - rho) * q[:, None, :] + rho * q[:, :, None] if t else np.repeat(q[:, None, :], actions, 1)
            value = np.take_along_axis(both, chosen[..., None], -1)[..., 0]
        return float(instance["initial"] @ value[:, 0])

    def prepare(threads):
        torch.set_num_threads(threads)
        shape = dict(net_arch=[64, 64], activation_fn=torch.nn.ReLU)
        rest = dict(ent_coef=0.01, clip_range=0.1, gamma=1.0, batch_size=256, n_epochs=4, n_steps=128)
        few, last = int(instance["few"]), []

        def solve():
            model = PPO(
                "MlpPolicy", DummyVecEnv([World] * 8), policy_kwargs=shape, learning_rate=2.5e-4, seed=0, **rest
            )
            model.learn(few)
            last[:] = [model]
            # The time is the learning's; this sweep of one small problem is below a hundredth of it.
            return np.array([exact(model)])

        return (solve, None), -(-few // 1024) * 1024

    import functools
    import os

    every = sorted({1, len(os.sched_getaffinity(0))})
    return {f"one problem, {threads} threads": functools.partial(prepare, threads) for threads in every}


# ---- SQIRL. Instance: problems, steps, seeds. Answer: steps of every search, inf for none.


def rlcore_sqirl(instance):
    """This library: pooled SQIRL, doubling m, problem by problem in one program; its first call compiles it."""
    jax = _jax()
    from envs.effective_horizon import pilot_problems
    from experiments.sqirl.success import all_sticky
    from rlcore.episodic import stacked
    from rlcore.sqirl import sample_complexity

    names, steps, seeds = tuple(instance["problems"].tolist()), int(instance["steps"]), int(instance["seeds"])
    stack = stacked(all_sticky(pilot_problems(names).values()))

    def solve():
        found = []
        for i in range(len(names)):
            one = jax.tree.map(lambda x, i=i: x[i], stack)
            most = max(steps, int(stack.length[i]) ** 2)
            key = jax.random.fold_in(jax.random.key(0), i)
            found.append(sample_complexity(one, key, depths=(1, 2, 3), seeds=seeds, max_steps=most).steps)
        return np.array(found)

    return {"doubling m, with compilation": lambda: ((solve, None), len(names))}


def _jax():
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


SOLVERS = {
    "analysis": {"rlcore": (rlcore_analysis, "rlcore"), "NumPy": (numpy_analysis, "numpy")},
    "ppo": {"rlcore": (rlcore_ppo, "rlcore"), "Stable-Baselines3": (stable_baselines_ppo, "stable-baselines3")},
    "sqirl": {"rlcore": (rlcore_sqirl, "rlcore")},
}


if __name__ == "__main__":
    peer.serve(SOLVERS, *sys.argv[1:])
