"""The linear programme of a discounted problem, solved by HiGHS on the host: an independent reference."""

import numpy as np

from rlcore.mdp import MDP, DenseMDP
from rlcore.types import Float

__all__ = ["linear_programme"]


def linear_programme(problem: MDP | DenseMDP) -> tuple[Float[np.ndarray, "S"], Float[np.ndarray, "S A"]]:
    """Optimal value and an optimal discounted occupancy by linear programming, in float64 on the host.

    Primal: min sum_s v(s) subject to v(s) >= r(s,a) + discount sum_s' P(s'|s,a) v(s') for available pairs. The dual
    variables are the occupancy from the uniform law times S.

    Args:
      problem: stationary, with concrete arrays; its `horizon` is ignored.

    Returns: (value float64[S], occupancy float64[S,A] started once in every state).
    Raises: RuntimeError if HiGHS finds no optimum (an undiscounted problem that need not end is unbounded), ValueError
      for a kernel with a time axis, TypeError for a problem of another type.
    Source: d'Epenoux 1963; Puterman 1994, section 6.9.1.
    Cost: one sparse LP with S variables and S A rows; seconds at S A = 10^4. Not for `jit` or `vmap`.
    """
    import scipy.optimize
    import scipy.sparse

    if not isinstance(problem, MDP | DenseMDP):
        raise TypeError(f"problem: found {type(problem).__name__}, expected an MDP or a DenseMDP")
    available = np.asarray(problem.available)
    num_states, num_actions = available.shape
    discount = float(problem.discount)
    if isinstance(problem, MDP):
        if problem.next_state.ndim != 3:
            raise ValueError(f"problem: found next_state {problem.next_state.shape}, expected a stationary kernel")
        live = np.asarray(problem.live_prob(), np.float64)
        rows = np.broadcast_to(np.arange(num_states * num_actions).reshape(num_states, num_actions, 1), live.shape)
        entries = (live.ravel(), (rows.ravel(), np.asarray(problem.next_state).ravel()))
        after = scipy.sparse.csr_matrix(entries, shape=(num_states * num_actions, num_states))
        # Summed here in float64: independent of the sums that the solvers trust.
        reward = (np.asarray(problem.prob, np.float64) * np.asarray(problem.reward, np.float64)).sum(-1)
    else:
        if problem.transition.ndim != 3:
            raise ValueError(f"problem: found transition {problem.transition.shape}, expected a stationary kernel")
        after = scipy.sparse.csr_matrix(np.asarray(problem.transition, np.float64).reshape(-1, num_states))
        reward = np.asarray(problem.reward, np.float64)
    here = scipy.sparse.kron(scipy.sparse.identity(num_states), np.ones((num_actions, 1)), format="csr")
    keep = available.ravel()
    result = scipy.optimize.linprog(
        np.ones(num_states),
        A_ub=(discount * after - here)[keep],
        b_ub=-reward.ravel()[keep],
        bounds=(None, None),
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if not result.success:
        raise RuntimeError(f"linear_programme: HiGHS answered {result.message!r}, expected an optimum")
    occupancy = np.zeros(num_states * num_actions)
    occupancy[keep] = -result.ineqlin.marginals
    return result.x, occupancy.reshape(num_states, num_actions)
