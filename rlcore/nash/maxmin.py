"""MaxMin policies: groups with rewards of their own, and the policy whose worst group is best off.

Group u earns <p, r_u> and everybody pays temperature KL(p || reference). The dual of the maximin problem is smooth and
convex in one weight per group: its policy is the geometric mixture of the groups' own optimal policies.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.nash.game import kl, log_normalise
from rlcore.nash.mirror_descent import PolicyState
from rlcore.pytree import pytree
from rlcore.solver import CONVERGED, NOT_FINITE, STEP_LIMIT, Solution
from rlcore.types import Array, Float, Number, RandomKey

__all__ = [
    "MaxMinPG",
    "MaxMinPolicy",
    "RewardGroups",
    "maxmin_policy",
    "minimax_regret",
    "minimax_regret_policy",
    "reward_groups",
]

# Every interior-point step aims at this share of the present complementarity.
CENTRING = 0.1
# Step lengths 1, 1/2, ..., 2^-19 of its line search.
TRIALS = 20


class RewardGroups(NamedTuple):
    """U groups over n responses; make one with `reward_groups`.

    rewards: float[U, n], in any unit. reference_logits: float[n], normalised, -inf masks.
    temperature: float[] > 0, reward per nat.
    """

    rewards: Array
    reference_logits: Array
    temperature: Array

    def utilities(self, log_policy: Float[Array, " n"]) -> Float[Array, " U"]:
        """Mean reward of each group, without the cost of the divergence."""
        return jnp.matmul(self.rewards, jnp.exp(log_policy), precision="highest")

    def value(self, log_policy: Float[Array, " n"]) -> Float[Array, ""]:
        """Reward of the worst group, less temperature KL(p || reference): what `maxmin_policy` maximises."""
        return jnp.min(self.utilities(log_policy)) - self.temperature * kl(log_policy, self.reference_logits)

    def policies(self) -> Float[Array, "U n"]:
        """Each group's optimal policy, reference exp(r_u / temperature)."""
        return jax.vmap(log_normalise)(self.reference_logits[None, :] + self.rewards / self.temperature)

    def regrets(self, log_policy: Float[Array, " n"]) -> Float[Array, " U"]:
        """What each group loses against its own optimal policy: temperature KL(p || that policy), exactly (T11)."""
        return self.temperature * jax.vmap(lambda own: kl(log_policy, own))(self.policies())


def reward_groups(rewards, reference_logits=None, temperature=1.0) -> RewardGroups:
    """Build and check groups on the host.

    Args: rewards: float[U, n], finite; reference_logits: float[n] up to a constant, -inf masks, uniform by default;
      temperature: float[], finite and > 0.
    Returns: `RewardGroups`, of the dtype of the rewards. Raises: ValueError naming the argument.
    Source: derived: definition. Cost: O(U n), on the host.
    """
    rewards = np.asarray(rewards)
    if rewards.ndim != 2 or rewards.size == 0 or not np.all(np.isfinite(rewards)):
        raise ValueError(f"rewards: found shape {rewards.shape}, expected finite numbers of shape (groups, responses)")
    default = np.float64 if jax.config.jax_enable_x64 else np.float32
    dtype = rewards.dtype if rewards.dtype in (np.float16, np.float32) else default
    logits = np.zeros(rewards.shape[1]) if reference_logits is None else np.asarray(reference_logits)
    if logits.shape != rewards.shape[1:]:
        raise ValueError(f"reference_logits: found shape {logits.shape}, expected {rewards.shape[1:]}")
    if np.any(np.isnan(logits) | (logits == np.inf)) or not np.any(logits > -np.inf):
        raise ValueError("reference_logits: found NaN, +inf or only -inf, expected finite numbers (or -inf to mask)")
    if np.ndim(temperature) != 0 or not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature: found {temperature}, expected a finite number > 0")
    normalised = log_normalise(jnp.asarray(logits, dtype))
    return RewardGroups(jnp.asarray(rewards, dtype), normalised, jnp.asarray(temperature, dtype))


class MaxMinPolicy(NamedTuple):
    """log_policy: float[n]. weights: float[U], the groups' weights in the dual, a distribution."""

    log_policy: Array
    weights: Array


def _tilt(reference, scores, weights):
    """reference exp(weights . scores), and the log of its mass."""
    logits = reference + jnp.matmul(weights, scores, precision="highest")
    log_mass = jax.scipy.special.logsumexp(logits)
    return logits - log_mass, log_mass


def _gap(reference, scores, weights):
    """Duality gap of a weight, in units of the temperature: sum_u w_u g_u - min g; every term is >= 0."""
    log_policy, _ = _tilt(reference, scores, weights)
    gain = jnp.matmul(scores, jnp.exp(log_policy), precision="highest")
    return jnp.sum(weights * (gain - jnp.min(gain)))


def _floor(reference, scores):
    """Bound on the rounding in `_gap`: that of the logits, which is relative in p, and of the means."""
    eps = jnp.finfo(scores.dtype).eps
    u, n = scores.shape
    largest = jnp.max(jnp.abs(scores))
    logits = 3 * jnp.max(jnp.where(reference > -jnp.inf, jnp.abs(reference), 0)) + (u + 3) * largest + 4
    return 2 * eps * largest * (logits + n + 4)


def maxmin_policy(groups: RewardGroups, *, tol: Number | None = None, max_steps: int = 100) -> Solution:
    """The policy that maximises min_u <p, r_u> - temperature KL(p || reference), by a primal-dual interior point.

    Args:
      groups: one instance.
      tol: the largest accepted `bound`; None is four times its rounding floor.
      max_steps: limit on Newton steps, static.

    Returns: Solution with value = `MaxMinPolicy` and bound on the duality gap, dual - primal value, in units of reward,
      rounding included. With p* the optimum, temperature (KL(p*||p) + KL(p||p*)) <= gap, and the value of p is
      within the gap of the optimum. NOT_FINITE unless temperature > 0.
    Raises: ValueError for max_steps < 0.
    Source: derived: docs/proofs/nash.md, T11 (Sion); the problem is that of Chakraborty et al. (2024), arXiv
      2402.08925, as quoted. Cost: about 20 steps of U^2 n; under `vmap` as the slowest lane.
    """
    if max_steps < 0:
        raise ValueError(f"max_steps: found {max_steps}, expected an integer >= 0")
    return _solve(groups, tol, max_steps=max_steps)


@functools.partial(jax.jit, static_argnames=("max_steps",))
def _solve(groups, tol, *, max_steps):
    reference, temperature = groups.reference_logits, groups.temperature
    # In units of the temperature; a constant common to all groups and responses changes nothing but digits.
    scores = (groups.rewards - jnp.mean(groups.rewards)) / temperature
    num_groups, dtype = scores.shape[0], scores.dtype
    floor = _floor(reference, scores)
    target_gap = 3 * floor if tol is None else jnp.asarray(tol, dtype) / temperature - floor
    lengths = 0.5 ** jnp.arange(TRIALS, dtype=dtype)

    def unfinished(carry):
        _, _, _, gap, steps, moved = carry
        return (steps < max_steps) & moved & ~(gap <= target_gap)

    def body(carry):
        weights, slack, best, best_gap, steps, _ = carry
        log_policy, _ = _tilt(reference, scores, weights)
        p = jnp.exp(log_policy)
        # The heaviest group's weight is 1 minus the others': the sum stays 1 to rounding, and no digits cancel.
        rest = 1 - jax.nn.one_hot(jnp.argmax(weights), num_groups, dtype=dtype)
        last = jnp.sum((1 - rest) * (slack / weights))
        relative = scores - jnp.sum((1 - rest)[:, None] * scores, axis=0, keepdims=True)
        advantage = jnp.matmul(relative, p, precision="highest")
        centred = relative - advantage[:, None]
        hessian = jnp.matmul(centred * p[None, :], centred.T, precision="highest")
        aim = CENTRING * jnp.sum(weights * slack) / num_groups
        # Newton on gain = multiplier + slack, w slack = aim; the multiplier and the heaviest group are eliminated.
        matrix = hessian + jnp.diag(slack / weights) + last
        matrix = matrix * rest[:, None] * rest[None, :] + jnp.diag(1 - rest)
        force = rest * (aim / weights - jnp.sum((1 - rest) * aim / weights) - advantage)
        d = jax.lax.rsqrt(jnp.diagonal(matrix))
        change = d * jnp.linalg.solve(d[:, None] * matrix * d[None, :], (d * force)[:, None])[:, 0]
        change = change - (1 - rest) * jnp.sum(change)
        slack_change = aim / weights - slack - slack / weights * change

        def longest(x, dx):
            """The step to 99% of the way to the boundary."""
            return jnp.minimum(1.0, 0.99 * jnp.min(jnp.where(dx < 0, -x / jnp.where(dx < 0, dx, 1), jnp.inf)))

        def merit(w):
            return _tilt(reference, scores, w)[1] - aim * jnp.sum(jnp.log(w))

        trials = weights[None, :] + (longest(weights, change) * lengths)[:, None] * change[None, :]
        here = merit(weights)
        slope = -jnp.sum(force * change)
        rounding = 8 * jnp.finfo(dtype).eps * (1 + jnp.abs(here) + jnp.max(jnp.abs(scores)))
        accepted = jax.vmap(merit)(trials) <= here + 1e-4 * longest(weights, change) * lengths * slope + rounding
        moved = jnp.any(accepted)
        new = jnp.where(moved, trials[jnp.argmax(accepted)], weights)
        new = new / jnp.sum(new)
        slack = slack + longest(slack, slack_change) * slack_change
        slack = jnp.clip(slack, 1e-10 * aim / new, 1e10 * aim / new)
        gap = _gap(reference, scores, new)
        better = gap < best_gap
        return new, slack, jnp.where(better, new, best), jnp.minimum(gap, best_gap), steps + 1, moved

    weights = jnp.full(num_groups, 1 / num_groups, dtype)
    gap = _gap(reference, scores, weights)
    slack = jnp.full(num_groups, jnp.maximum(gap, floor), dtype)
    start = (weights, slack, weights, gap, jnp.zeros((), jnp.int32), jnp.array(True))
    _, _, weights, gap, steps, _ = jax.lax.while_loop(unfinished, body, start)
    log_policy, _ = _tilt(reference, scores, weights)
    bound = temperature * (gap + floor)
    finite = (bound < jnp.inf) & (temperature > 0)
    status = jnp.where(finite, jnp.where(gap <= target_gap, CONVERGED, STEP_LIMIT), NOT_FINITE).astype(jnp.int32)
    return Solution(MaxMinPolicy(log_policy, weights), status, steps, jnp.where(finite, bound, jnp.inf))


def minimax_regret_policy(groups: RewardGroups, *, tol: Number | None = None, max_steps: int = 100) -> Solution:
    """The policy whose largest regret over groups, temperature KL(p || p_u), is smallest.

    Args: as `maxmin_policy`; the rewards are measured from each group's own optimum.
    Returns: as `maxmin_policy`; the largest regret is within `bound` of the smallest possible one.
    Source: derived: docs/proofs/nash.md, T11: a geometric mixture of the groups' policies. Cost: as `maxmin_policy`.
    """
    own = groups.reference_logits[None, :] + groups.rewards / groups.temperature
    best = groups.temperature * jax.vmap(jax.scipy.special.logsumexp)(own)
    return maxmin_policy(groups._replace(rewards=groups.rewards - best[:, None]), tol=tol, max_steps=max_steps)


def minimax_regret(groups: RewardGroups, weights: Float[Array, " U"]) -> Float[Array, ""]:
    """-temperature log sum_y prod_u p_u(y)^(w_u): no policy has a largest regret below it; the best weight attains it.

    Args: groups; weights: float[U], a distribution.
    Returns: float[] >= 0, in units of reward; for two groups the best is temperature times Chernoff's information.
    Source: derived: docs/proofs/nash.md, T11. Cost: U n.
    """
    available = groups.reference_logits > -jnp.inf
    mixed = jnp.matmul(weights, jnp.where(available[None, :], groups.policies(), 0), precision="highest")
    return -groups.temperature * jax.scipy.special.logsumexp(jnp.where(available, mixed, -jnp.inf))


@pytree
class MaxMinPG:
    """Each step follows the policy gradient of the group that is worst off now; the problem is `RewardGroups`.

    With a constant step it ends in a cycle around the kink where groups tie, of a size set by the step.

    step_size: float[], of the softmax logits.
    Source: Chakraborty et al. (2024), arXiv 2402.08925, as quoted in a digest. Cost per step: U n.
    """

    step_size: Array | float

    def start(self, log_policy: Float[Array, " n"]) -> PolicyState:
        """The state before the first step from `log_policy`."""
        return PolicyState(log_policy, jnp.zeros((), jnp.int32))

    def init(self, problem: RewardGroups, key: RandomKey = None) -> PolicyState:
        """Start at the reference policy."""
        return self.start(problem.reference_logits)

    def step(self, problem: RewardGroups, state: PolicyState, key: RandomKey = None) -> PolicyState:
        """One step; nothing is sampled."""
        lp, reference = state.log_policy, problem.reference_logits
        worst = problem.rewards[jnp.argmin(problem.utilities(lp))]
        ratio = jnp.where(reference > -jnp.inf, lp, 0) - jnp.where(reference > -jnp.inf, reference, 0)
        gain = worst - problem.temperature * ratio
        p = jnp.exp(lp)
        centred = gain - jnp.sum(p * gain)
        return PolicyState(log_normalise(lp + self.step_size * p * centred), state.t + 1)
