"""The last-switch-dependent bandit: every arm's payoff depends on how long it has rested, or been played, until now.

Local states of an arm, read BEFORE a round: +s, not played in the last s rounds; -j, played in each of the last j. They
are stored in increasing order as e = 0 .. S - 1: e < L is -(L - e), e >= L is e - L + 1; payoffs are constant beyond
depth M (rest) and L (play), S = L + M. A play after s idle rounds is a play at delay s + 1.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.pytree import pytree, static
from rlcore.types import Array, Bool, Float, Int, Number

__all__ = [
    "IDLE_RULES",
    "SwitchingBandit",
    "advance",
    "from_delays",
    "from_tables",
    "initial_state",
    "payoff_class",
    "require_plays",
    "require_reset",
    "transition_tables",
]

IDLE_RULES = ("reset", "decrement")
STARTS = ("rested", "one", "just")
# From the strongest class to none at all.
CLASSES = ("monotone", "recovering", "arbitrary")


@pytree
class SwitchingBandit:
    """k arms with S = satiation + M local states each; build it with `from_tables` or `from_delays`.

    payoffs: float[k, S], mean reward of a play in [0, 1], by local state in increasing order. satiation: L, static.
    idle_rule: "reset" (idling after a run of plays leads to +1) or "decrement" (one state up at a time), static.
    allow_idle: whether a round may be left empty, static. start: "rested" (+M), "one" (+1) or "just" (-1), static.
    """

    payoffs: Array
    satiation: int = static()
    idle_rule: str = static("reset")
    allow_idle: bool = static(True)
    start: str = static("rested")

    @property
    def num_arms(self) -> int:
        """k, of one problem."""
        return self.payoffs.shape[-2]

    @property
    def num_local(self) -> int:
        """S."""
        return self.payoffs.shape[-1]

    @property
    def recovery(self) -> int:
        """M."""
        return self.num_local - self.satiation

    @property
    def rested(self) -> Float[Array, "k M"]:
        """Payoffs after s = 1 .. M idle rounds."""
        return self.payoffs[..., self.satiation :]

    @property
    def tired(self) -> Float[Array, "k L"]:
        """Payoffs after j = 1 .. L plays in a row."""
        return self.payoffs[..., : self.satiation][..., ::-1]


def from_tables(
    recovery,
    satiation,
    *,
    idle_rule: str = "reset",
    allow_idle: bool = True,
    start: str = "rested",
    payoff_class: str = "arbitrary",
) -> SwitchingBandit:
    """Check the payoffs of a switching bandit on the host and build it.

    Args: recovery: [k, M], payoff after s = 1 .. M idle rounds; satiation: [k, L], payoff after j = 1 .. L plays in a
      row; idle_rule, allow_idle, start: see `SwitchingBandit`; payoff_class: what the caller claims of the payoffs,
      "monotone" (less after every further play, more after every further rest), "recovering" (more after every further
      rest) or "arbitrary".
    Raises: ValueError: shapes that do not fit, depth 0, payoffs off [0, 1] or NaN, a class that the payoffs are not
      of; the message names the arm.
    Source: Foussoul et al. (2023), arXiv 2306.00338 (abstract read), and Laforgue et al. (2022), arXiv 2110.11819 (code
      read), for the model; its conventions as set out in this module. Cost: one pass.
    """
    up, down = np.asarray(recovery, float), np.asarray(satiation, float)
    if up.ndim != 2 or down.ndim != 2 or len(up) != len(down) or 0 in (*up.shape, *down.shape):
        raise ValueError(
            f"recovery, satiation: found shapes {up.shape}, {down.shape}, expected [k, M] and [k, L] with k, M, L >= 1"
        )
    for name, x in (("recovery", up), ("satiation", down)):
        if not np.all(np.isfinite(x)) or x.min() < 0 or x.max() > 1:
            at = tuple(int(i) for i in np.argwhere(~((x >= 0) & (x <= 1)))[0])
            raise ValueError(f"{name}: found {x[at]} at {at}, expected payoffs in [0, 1]")
    for name, found, allowed in (
        ("idle_rule", idle_rule, IDLE_RULES),
        ("start", start, STARTS),
        ("payoff_class", payoff_class, CLASSES),
    ):
        if found not in allowed:
            raise ValueError(f"{name}: found {found!r}, expected one of {allowed}")
    payoffs = np.concatenate([down[:, ::-1], up], axis=1)
    _check_class(payoffs, down.shape[1], payoff_class)
    return SwitchingBandit(jnp.asarray(payoffs), down.shape[1], idle_rule, allow_idle, start)


def from_delays(
    delays, *, allow_idle: bool = True, start: str = "rested", payoff_class: str = "arbitrary"
) -> SwitchingBandit:
    """A recharging bandit: the payoff depends on the delay d = 1 .. D since the last play alone.

    Args: delays: [k, D], D >= 2, the payoff at delay d; delay 1 is a play right after a play; the rest as in
      `from_tables`.
    Returns: SwitchingBandit with L = 1, M = D - 1. Raises: ValueError: as `from_tables`. Cost: one pass.
    """
    table = np.asarray(delays, float)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(f"delays: found shape {table.shape}, expected [k, D] with D >= 2")
    return from_tables(table[:, 1:], table[:, :1], allow_idle=allow_idle, start=start, payoff_class=payoff_class)


def _check_class(payoffs: np.ndarray, satiation: int, claimed: str) -> None:
    if claimed == "arbitrary":
        return
    first = 0 if claimed == "monotone" else satiation
    falls = np.diff(payoffs[:, first:], axis=1) < 0
    if np.any(falls):
        arm, e = (int(i) for i in np.argwhere(falls)[0])
        e += first
        names = [f"+{x - satiation + 1}" if x >= satiation else f"-{satiation - x}" for x in (e, e + 1)]
        raise ValueError(
            f"payoff_class: found arm {arm} paying {payoffs[arm, e]:g} in state {names[0]} and {payoffs[arm, e + 1]:g} "
            f"in {names[1]}, expected payoffs that never fall ({claimed!r})"
        )


def payoff_class(problem: SwitchingBandit) -> str:
    """The strongest class of the payoffs: "monotone", "recovering" or "arbitrary". Reads the payoffs on the host."""
    payoffs = np.asarray(problem.payoffs)
    rises = np.diff(payoffs, axis=-1) >= 0
    if np.all(rises):
        return "monotone"
    return "recovering" if np.all(rises[..., problem.satiation :]) else "arbitrary"


def require_plays(plays: Number, num_arms: int) -> None:
    """Raise ValueError unless the number of plays per round is in 1 .. k; a traced one passes."""
    if not isinstance(plays, jax.core.Tracer) and not 1 <= plays <= num_arms:
        raise ValueError(f"plays: found {plays}, expected an integer in [1, {num_arms}] (the number of arms)")


def require_reset(problem: SwitchingBandit) -> None:
    """Raise ValueError unless the idle rule is "reset": under the other one recovery takes a run's length, and cycles
    and the virtual states made of them say too little."""
    if problem.idle_rule != "reset":
        raise ValueError(
            f"idle_rule: found {problem.idle_rule!r}, expected 'reset' (`occupation_programme` and `markov_schedule` "
            "take every rule)"
        )


def transition_tables(problem: SwitchingBandit) -> tuple[Int[Array, " S"], Int[Array, " S"]]:
    """(int32[S] next local state after a play, int32[S] after an idle round), the same for every arm. Cost: S."""
    s, low = problem.num_local, problem.satiation
    e = np.arange(s)
    play = np.where(e >= low, low - 1, np.maximum(e - 1, 0))
    up = np.minimum(e + 1, s - 1)
    idle = up if problem.idle_rule == "decrement" else np.where(e >= low, up, low)
    return jnp.asarray(play, jnp.int32), jnp.asarray(idle, jnp.int32)


def initial_state(problem: SwitchingBandit, start: str | None = None) -> Int[Array, " k"]:
    """int32[k], every arm "rested" (+M), at "one" (+1) or "just" played (-1); the problem's own start by default."""
    start = problem.start if start is None else start
    if start not in STARTS:
        raise ValueError(f"start: found {start!r}, expected one of {STARTS}")
    at = {"rested": problem.num_local - 1, "one": problem.satiation, "just": problem.satiation - 1}[start]
    return jnp.full(problem.num_arms, at, jnp.int32)


def advance(
    problem: SwitchingBandit, local: Int[Array, " k"], played: Bool[Array, " k"]
) -> tuple[Float[Array, " k"], Int[Array, " k"]]:
    """One round: (float[k] mean payoffs collected, 0 where not played; int32[k] next local states).

    Args: local: int32[k], states before the round; played: bool[k].
    Source: definition; the payoff is read before the transition. Cost: k.
    """
    payoff = jnp.take_along_axis(problem.payoffs, local[:, None], axis=1)[:, 0]
    # Arithmetic rather than table look-ups: a gather per arm would be most of a round's cost.
    low, top = problem.satiation, problem.num_local - 1
    rises = jnp.minimum(local + 1, top)
    idle = rises if problem.idle_rule == "decrement" else jnp.where(local >= low, rises, low)
    play = jnp.where(local >= low, low - 1, jnp.maximum(local - 1, 0))
    return jnp.where(played, payoff, 0), jnp.where(played, play, idle)
