"""Equilibria of preference games: a Newton method, an extragradient run, a linear programme and closed forms.

The regularised equilibrium is the only policy that is its own best response: log pi = log mu + P pi / tau + constant.
Errors are measured in the span norm, max - min of (log pi - log pi*) over the available actions, which does not see
constants; it bounds every log-ratio error, and KL(pi || pi*) <= span^2 / 8.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.nash.extragradient import EGPO
from rlcore.nash.game import PreferenceGame, available_actions, log_normalise, preference_game
from rlcore.solver import CONVERGED, NOT_FINITE, STEP_LIMIT, Solution, fixed_point
from rlcore.types import Array, Float, Number

__all__ = [
    "critical_step_size",
    "equilibrium",
    "equilibrium_error",
    "equilibrium_extragradient",
    "lottery",
    "three_cycle_equilibrium",
    "two_action_equilibrium",
]

# Below this temperature Newton's method is started from the equilibrium at twice the temperature.
DIRECT_TEMPERATURE = 1e-3
# Trial step lengths 1, 1/2, ..., 2^-19 of the line search, all evaluated at once.
TRIALS = 20


def _span(v, available):
    return jnp.max(jnp.where(available, v, -jnp.inf)) - jnp.min(jnp.where(available, v, jnp.inf))


def _error_terms(game: PreferenceGame, log_policy):
    """(span of the residual, bound on the rounding in it, amplification of both)."""
    available = available_actions(game)
    payoff = game.preference - 0.5
    largest = jnp.max(jnp.where(available[:, None] & available[None, :], jnp.abs(payoff), 0))
    lp, reference = jnp.where(available, log_policy, 0), jnp.where(available, game.reference_logits, 0)
    gain = jnp.matmul(payoff, jnp.exp(log_policy), precision="highest") / game.temperature
    residual = _span(lp - reference - gain, available)
    n = log_policy.shape[0]
    # Rounding of the three terms and of their differences: 3 eps times the largest terms. The mat-vec, its
    # exponentials and its division: (n + 4) eps times a / tau, since the p_j sum to 1 (to n eps). Twice: a span.
    largest_gain = largest / game.temperature
    floor = (
        2
        * jnp.finfo(lp.dtype).eps
        * (
            3 * (jnp.max(jnp.abs(lp)) + jnp.max(jnp.abs(reference)) + jnp.max(jnp.abs(jnp.where(available, gain, 0))))
            + (2 * n + 8) * largest_gain
        )
    )
    return residual, floor, 1 + largest_gain


def equilibrium_error(game: PreferenceGame, log_policy: Float[Array, " n"]) -> Float[Array, ""]:
    """A bound on the error of a policy as the equilibrium: span(log pi - log pi*) <= (1 + a / tau) span(residual).

    The residual is log pi - log reference - P pi / tau, whose span is 0 at the equilibrium only; a = max |P - 1/2|. A
    bound on the rounding in the residual is included, so the bound never reaches 0.

    Args: game: temperature > 0; log_policy: float[n], normalised.
    Returns: float[], in nats, in the span norm over the available actions.
    Source: derived: with BR the best response, 2 tau KL(pi || pi*) <= gap = 2 tau KL(pi || BR(pi)) <= tau span^2 / 4
      (span of the residual), so |pi - pi*|_1 <= span / 2 by Pinsker, and log pi - log pi* = residual +
      P (pi - pi*) / tau, the last term's span being <= 2 a |pi - pi*|_1 / tau.
    Cost: n^2.
    """
    residual, floor, amplification = _error_terms(game, log_policy)
    return (residual + floor) * amplification


def _threshold(game, log_policy, tol):
    """`tol`, or without one twice the rounding floor of the certificate."""
    if tol is not None:
        return jnp.asarray(tol, log_policy.dtype)
    _, floor, amplification = _error_terms(game, log_policy)
    return 2 * floor * amplification


def _residual(game, payoff, log_policy):
    """log pi - log reference - A pi / tau, centred over the available actions, 0 elsewhere; and A pi."""
    available = available_actions(game)
    gain = jnp.matmul(payoff, jnp.exp(log_policy), precision="highest")
    residual = jnp.where(available, log_policy, 0) - jnp.where(available, game.reference_logits, 0)
    residual = residual - gain / game.temperature
    return jnp.where(available, residual - jnp.mean(residual, where=available), 0), gain


def _jacobian(game, payoff, log_policy, gain):
    """Derivative I - C A Cov(pi) / tau of the residual in the logits; C centres over the available actions."""
    available = available_actions(game)[:, None]
    product = (payoff - gain[:, None]) * jnp.exp(log_policy)[None, :]
    product = jnp.where(available, product - jnp.mean(product, axis=0, keepdims=True, where=available), 0)
    return jnp.eye(log_policy.shape[0], dtype=log_policy.dtype) - product / game.temperature


def equilibrium(
    preference: Float[Array, "n n"],
    reference_logits: Float[Array, " n"],
    temperature: Number,
    *,
    tol: Number | None = None,
    max_steps: int = 400,
) -> Solution:
    """The regularised equilibrium by damped Newton, to rounding.

    Below temperature 1e-3 the temperature is halved from there, each stage started at the previous solution.
    Differentiable in all three arrays by the implicit function theorem, forwards and backwards.

    Args:
      preference: float[n, n]. reference_logits: float[n], -inf masks. temperature: float[] > 0.
      tol: the largest accepted `bound`; None is twice the rounding floor of the certificate.
      max_steps: limit on Newton steps over all stages, static.

    Returns: Solution with value = log-policy float[n], and bound on span(value - log pi*), see `equilibrium_error`.
      STEP_LIMIT also where rounding stops the progress before `tol`; NOT_FINITE unless temperature > 0.
    Raises: ValueError for max_steps < 0. Other values are not checked: `preference_game` does that.
    Source: derived: the Jacobian's eigenvalues are 1 - i w with w real, so it is never singular.
    Cost: about 10 to 30 steps of an n x n solve, more with each halving below 1e-3; under `vmap` as the slowest lane:
      many games on a CPU take a third as `jax.lax.map(..., batch_size=32)`, less again if sorted by temperature.
    """
    if max_steps < 0:
        raise ValueError(f"max_steps: found {max_steps}, expected an integer >= 0")
    reference = jnp.asarray(reference_logits)
    return _equilibrium(preference, reference, jnp.asarray(temperature, reference.dtype), tol, max_steps=max_steps)


@functools.partial(jax.jit, static_argnames=("max_steps",))
def _equilibrium(preference, reference_logits, temperature, tol, *, max_steps):
    available = reference_logits > -jnp.inf
    both = available[:, None] & available[None, :]
    payoff = jnp.where(both, preference - 0.5, 0)
    reference = log_normalise(reference_logits)
    game = PreferenceGame(*jax.lax.stop_gradient((preference, reference, temperature)))
    log_policy, steps, finite = _newton(jax.lax.stop_gradient(payoff), game, tol, max_steps)
    # The value of this correction is exactly 0; its derivative is that of the implicit function.
    residual, gain = _residual(PreferenceGame(preference, reference, temperature), payoff, log_policy)
    jacobian = jax.lax.stop_gradient(_jacobian(game, payoff, log_policy, gain))
    change = residual - jax.lax.stop_gradient(residual)
    log_policy = log_normalise(log_policy - jnp.linalg.solve(jacobian, change[:, None])[:, 0])
    fixed = jax.lax.stop_gradient(log_policy)
    bound = equilibrium_error(game, fixed)
    # At a negative temperature the certificate is negative, and would accept anything.
    finite = finite & (bound < jnp.inf) & (temperature > 0)
    reached = bound <= _threshold(game, fixed, tol)
    status = jnp.where(finite, jnp.where(reached, CONVERGED, STEP_LIMIT), NOT_FINITE).astype(jnp.int32)
    return Solution(log_policy, status, steps, jnp.where(finite, bound, jnp.inf))


def _newton(payoff, game, tol, max_steps):
    target = game.temperature
    lengths = 0.5 ** jnp.arange(TRIALS, dtype=target.dtype)

    def body(carry):
        log_policy, temperature, steps, _, _ = carry
        stage = game._replace(temperature=temperature)
        residual, gain = _residual(stage, payoff, log_policy)
        jacobian = _jacobian(stage, payoff, log_policy, gain)
        direction = jnp.linalg.solve(jacobian, -residual[:, None])[:, 0]
        # In the gauge where likely actions move least: a common shift of size 1 / tau would cost their digits.
        direction = direction - jnp.dot(jnp.exp(log_policy), direction, precision="highest")
        trials = jax.vmap(lambda length: log_normalise(log_policy + length * direction))(lengths)
        norms = jax.vmap(lambda trial: jnp.linalg.norm(_residual(stage, payoff, trial)[0]))(trials)
        accepted = norms <= (1 - lengths / 4) * jnp.linalg.norm(residual)
        moved = jnp.any(accepted)
        new = jnp.where(moved, trials[jnp.argmax(accepted)], log_policy)
        last_stage = temperature <= target
        # An intermediate stage only has to land where the next one converges.
        small = 1e-6 * (1 + jnp.max(jnp.abs(gain)) / temperature)
        landed = ~last_stage & ((jnp.min(norms) <= small) | ~moved)
        done = last_stage & (~moved | (equilibrium_error(game, new) <= _threshold(game, new, tol)))
        cooler = jnp.where(landed, jnp.maximum(temperature / 2, target), temperature)
        return new, cooler, steps + 1, done, jnp.all(jnp.isfinite(direction))

    def unfinished(carry):
        _, _, steps, done, finite = carry
        return ~done & finite & (steps < max_steps)

    start = jnp.maximum(target, jnp.asarray(DIRECT_TEMPERATURE, target.dtype))
    carry = (game.reference_logits, start, jnp.zeros((), jnp.int32), jnp.array(False), jnp.array(True))
    log_policy, _, steps, _, finite = jax.lax.while_loop(unfinished, body, carry)
    return log_policy, steps, finite


def _relative_error(game, state):
    """The certificate in units of 16 times its rounding floor, which long runs of rounded steps still reach."""
    return equilibrium_error(game, state.log_policy) / (8 * _threshold(game, state.log_policy, None))


def _state_error(game, state):
    return equilibrium_error(game, state.log_policy)


def equilibrium_extragradient(
    preference: Float[Array, "n n"],
    reference_logits: Float[Array, " n"],
    temperature: Number,
    *,
    tol: Number | None = None,
    max_steps: int = 1_000_000,
    check_every: int = 50,
) -> Solution:
    """The regularised equilibrium by EGPO, the second solver that shares no iteration with `equilibrium`.

    Args: as `equilibrium`, but tol None is 16 times the rounding floor of the certificate; check_every: steps
      between certificates, static.
    Returns: Solution with value = log-policy float[n] and the same certificate as `equilibrium`.
    Raises: ValueError for max_steps < 0 or check_every < 1.
    Source: derived: linear convergence, docs/proofs/nash.md, T4.
    Cost: about log(1/error) / temperature steps of 2 n^2.
    """
    reference = log_normalise(jnp.asarray(reference_logits))
    game = PreferenceGame(preference, reference, jnp.asarray(temperature, reference.dtype))
    certificate, limit = (_relative_error, 1.0) if tol is None else (_state_error, tol)
    solution = fixed_point(EGPO(), game, certificate, limit, max_steps, check_every=check_every)
    log_policy = solution.value.log_policy
    status = jnp.where(game.temperature > 0, solution.status, NOT_FINITE)
    bound = jnp.where(status == NOT_FINITE, jnp.inf, equilibrium_error(game, log_policy))
    return Solution(log_policy, status, solution.steps, bound)


def lottery(preference) -> np.ndarray:
    """A von Neumann winner (maximal lottery): an unregularised maximin policy, by linear programming on the host.

    The programme finds the support; a linear solve on it then gives the probabilities to rounding, where it verifies.

    Args: preference: float[n, n], concrete.
    Returns: float64[n], probabilities; no policy beats it with probability above 1/2. Unique for almost every game.
    Raises: ValueError unless `preference` is one finite n x n matrix of probabilities with P + P^T = 1; RuntimeError if
      the solver fails or its value is not the 1/2 that symmetry demands.
    Source: derived: maximise v subject to (P - 1/2)^T x >= v, x a distribution. On the support of a winner that loses
      to every other action A x = 0: a linear system.
    Cost: one linear programme of n + 1 variables (HiGHS) and one solve of the size of the support.
    """
    from scipy.optimize import linprog

    if np.ndim(preference) != 2:
        raise ValueError(f"preference: found shape {np.shape(preference)}, expected one n x n matrix")
    preference_game(preference)  # checks the entries
    preference = np.asarray(preference, np.float64)
    payoff = (preference - preference.T) / 2
    n = payoff.shape[0]
    outcome = linprog(
        np.append(np.zeros(n), -1.0),
        A_ub=np.hstack([-payoff.T, np.ones((n, 1))]),
        b_ub=np.zeros(n),
        A_eq=np.append(np.ones(n), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * n + [(None, None)],
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if outcome.status != 0:
        raise RuntimeError(f"lottery: found HiGHS status {outcome.status} ({outcome.message}), expected optimal")
    # HiGHS's tolerance is 1e-10 per constraint.
    if abs(outcome.x[n]) > 1e-8:
        raise RuntimeError(f"lottery: found the value 1/2 + {outcome.x[n]:.3g} by HiGHS, expected 1/2")
    policy = np.maximum(outcome.x[:n], 0.0)
    policy = policy / policy.sum()
    polished = _polish(payoff, policy)
    return policy if polished is None else polished


def _polish(payoff: np.ndarray, policy: np.ndarray) -> np.ndarray | None:
    """The solution of A x = 0, sum x = 1 on the support of `policy`, or None unless it is a better winner."""
    support = np.flatnonzero(policy > 1e-9)
    k = support.size
    # The multiplier v of the sum is the value, 0: the bordered matrix is square, and regular where x is unique.
    bordered = np.block([[payoff[np.ix_(support, support)], np.ones((k, 1))], [np.ones((1, k)), np.zeros((1, 1))]])
    try:
        x = np.linalg.solve(bordered, np.append(np.zeros(k), 1.0))[:k]
    except np.linalg.LinAlgError:
        return None
    if not np.all(x > 0):
        return None
    candidate = np.zeros_like(policy)
    candidate[support] = x / x.sum()
    return candidate if np.max(payoff @ candidate) <= np.max(payoff @ policy) else None


def two_action_equilibrium(
    win: Number, reference_logits: Float[Array, " 2"], temperature: Number
) -> Float[Array, " 2"]:
    """The regularised equilibrium of two actions: its log-odds are the reference's plus (2 p - 1) / (2 tau).

    Args: win: float[], Prob(action 0 beats action 1); reference_logits: float[2]; temperature: float[] > 0.
    Returns: float[2], log-probabilities.
    Source: derived: with two actions the difference of win rates does not depend on the opponent. Cost: O(1).
    """
    shift = (2 * win - 1) / (2 * temperature)
    return log_normalise(reference_logits + jnp.asarray([1, 0], reference_logits.dtype) * shift)


def three_cycle_equilibrium(preference: Float[Array, "3 3"]) -> Float[Array, " 3"]:
    """The von Neumann winner of a cycle of three: each action weighs as much as the margin between the other two.

    Args: preference: float[3, 3], with 0 over 1 over 2 over 0, or all reversed; otherwise one action beats or ties
      the others and this is no equilibrium.
    Returns: float[3], probabilities.
    Source: derived: kernel of a 3 x 3 skew-symmetric matrix. Cost: O(1).
    """
    margin = jnp.abs(jnp.stack([preference[1, 2], preference[2, 0], preference[0, 1]]) - 0.5)
    return margin / jnp.sum(margin)


def critical_step_size(game: PreferenceGame, log_equilibrium: Float[Array, " n"]) -> Float[Array, ""]:
    """The step 2 tau / (tau^2 + w^2): below it `OMD` is locally stable at the equilibrium, above it leaves.

    Args: game: temperature > 0; log_equilibrium: float[n].
    Returns: float[]; w is the largest modulus of the (imaginary) eigenvalues of (P - 1/2) Cov(pi*). Steps are
      admissible up to 1 / tau only, whatever this says.
    Source: derived: multipliers of the linearised step are 1 - eta tau + i eta w. Cost: one n x n SVD.
    """
    p = jnp.exp(log_equilibrium)
    root = jnp.sqrt(p)[:, None] * (jnp.eye(p.shape[0], dtype=p.dtype) - p[None, :])
    available = available_actions(game)
    payoff = jnp.where(available[:, None] & available[None, :], game.preference - 0.5, 0)
    # Cov = root^T root, so A Cov and the skew-symmetric root A root^T share their nonzero eigenvalues.
    skew = jnp.matmul(jnp.matmul(root, payoff, precision="highest"), root.T, precision="highest")
    w = jnp.linalg.svd(skew, compute_uv=False)[0]
    return 2 * game.temperature / (game.temperature**2 + w**2)
