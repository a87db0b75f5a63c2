"""Families of last-switch-dependent bandits: random tables, recharging and satiating arms, traps, published instances.

Every family returns an `rlcore.lsd.SwitchingBandit` and claims the class of its payoffs, checked where they are
concrete; random families take a key first. Sizes are static; numbers and keys may be traced, so `jax.vmap` makes
batches (their ranges and class are then the caller's promise). H(d) is the payoff at delay d, d - 1 rounds of rest.
"""

import jax
import jax.numpy as jnp
import numpy as np

from envs.checks import check_choice, check_integer
from rlcore.lsd import SwitchingBandit, from_delays, from_tables
from rlcore.types import Array, Float, Key, Number, Shaped

__all__ = [
    "FAMILIES",
    "PREFIX",
    "blocking",
    "cap",
    "concave_random",
    "exp_recharge",
    "greedy_trap",
    "hunger_satiation",
    "interrupter",
    "laforgue_main",
    "laforgue_supplement",
    "momentum",
    "pinwheel",
    "reference",
    "satiation",
    "scaled",
    "seasonal",
    "sparse",
    "spike",
    "tight",
    "uniform",
]

PREFIX = "lsd"
# A number for every arm, or one for all.
PerArm = Number | list | tuple | np.ndarray | Shaped[Array, "..."]


def _traced(*xs: PerArm) -> bool:
    return any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(xs))


def _check(name: str, x: PerArm, low: Number, high: Number = np.inf, open: bool = False) -> None:
    if not _traced(x):
        values = np.asarray(x, float)
        if not np.all((values > low if open else values >= low) & (values <= high)):
            bounds = f"in [{low:g}, {high:g}]" if np.isfinite(high) else f"{'above' if open else 'of at least'} {low:g}"
            raise ValueError(f"{name}: found {x}, expected numbers {bounds}")


def _check_delays(delays: PerArm) -> None:
    values = np.asarray(delays, float)
    if not np.all((values >= 2) & (values < np.inf) & (values == np.round(values))):
        raise ValueError(f"delays: found {delays}, expected [k] integers of at least 2")


def _float(x: PerArm) -> Float[Array, "..."]:
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float)


def _arms(**numbers: PerArm) -> list[Float[Array, " k"]]:
    """The arguments as float[k], k being the length of those that are no single numbers."""
    arrays = {name: _float(x) for name, x in numbers.items()}
    if any(x.ndim > 1 or x.size == 0 for x in arrays.values()) or len({x.size for x in arrays.values()} - {1}) > 1:
        shapes = ", ".join(f"{name} {x.shape}" for name, x in arrays.items())
        raise ValueError(f"{', '.join(numbers)}: found shapes {shapes}, expected numbers or [k] of one length")
    k = max(x.size for x in arrays.values())
    return [jnp.broadcast_to(jnp.atleast_1d(x), (k,)) for x in arrays.values()]


def _build(rested: Float[Array, "k M"], tired: Float[Array, "k L"], claim: str) -> SwitchingBandit:
    if _traced(rested, tired):
        return SwitchingBandit(jnp.concatenate([tired[:, ::-1], rested], axis=1), tired.shape[1])
    return from_tables(rested, tired, payoff_class=claim)


def _by_delay(payoffs: Float[Array, "k D"], claim: str) -> SwitchingBandit:
    return _build(payoffs[:, 1:], payoffs[:, :1], claim)


def _without_dents(rising: Float[Array, "k n"]) -> Float[Array, "k n"]:
    """The rows with falls of a few roundings levelled: true falls stay, for the check of the class to find."""
    highest = jax.lax.cummax(rising, axis=1)
    return jnp.where(highest - rising <= 8 * jnp.finfo(rising.dtype).eps, highest, rising)


def _delays(recovery: object, longest: PerArm, name: str) -> Float[Array, "1 D"]:
    """Delays 1 .. recovery + 1; by default the longest that matters is the last."""
    if recovery is None:
        if _traced(longest):
            raise ValueError(f"recovery: found None, expected a depth, as {name} is traced")
        recovery = max(1, int(np.ceil(np.max(np.asarray(longest, float)))) - 1)
    recovery = check_integer("recovery", recovery, 1)
    return jnp.arange(1.0, recovery + 2)[None, :]


def _random_table(key: Key[Array, ""], k: int, recovery: int, satiation: int, kind: str) -> SwitchingBandit:
    k, recovery = check_integer("k", k, 1), check_integer("recovery", recovery, 1)
    satiation = check_integer("satiation", satiation, 1)
    check_choice("kind", kind, ("uniform", "sparse", "scaled"))
    table_key, scale_key = jax.random.split(key)
    values = jax.random.uniform(table_key, (k, recovery + satiation))
    if kind == "sparse":
        values = values**4
    if kind == "scaled":
        values = values * jax.random.uniform(scale_key, (k, 1))
    values = jnp.sort(values, axis=1)
    return _build(values[:, satiation:], values[:, :satiation][:, ::-1], "monotone")


def uniform(key: Key[Array, ""], k: int, recovery: int, satiation: int) -> SwitchingBandit:
    """Monotone tables of sorted independent uniform payoffs.

    Args: key; k: arms; recovery: M; satiation: L; all static.
    Returns: SwitchingBandit, monotone. Source: this project's generator G. Cost: k S log S.
    """
    return _random_table(key, k, recovery, satiation, "uniform")


def sparse(key: Key[Array, ""], k: int, recovery: int, satiation: int) -> SwitchingBandit:
    """Monotone tables of sorted fourth powers of uniforms: few states pay much.

    Args, returns, source, cost: as `uniform`.
    """
    return _random_table(key, k, recovery, satiation, "sparse")


def scaled(key: Key[Array, ""], k: int, recovery: int, satiation: int) -> SwitchingBandit:
    """Monotone tables of sorted uniforms, each arm times one more uniform: good and bad arms.

    Args, returns, source, cost: as `uniform`.
    """
    return _random_table(key, k, recovery, satiation, "scaled")


def blocking(delays: PerArm, rewards: PerArm = 1.0, recovery: int | None = None) -> SwitchingBandit:
    """Blocking arms: H(d) = reward from delay `delays` on, nothing before.

    Args: delays: D, [k] >= 1; rewards: [k] in [0, 1]; recovery: M, static, max D - 1 by default.
    Returns: SwitchingBandit, L = 1, monotone.
    Source: Basu et al. (2019), arXiv 1907.11975 (abstract read), for the model. Cost: k M.
    """
    _check("delays", delays, 1)
    _check("rewards", rewards, 0, 1)
    d = _delays(recovery, delays, "delays")
    delays, rewards = _arms(delays=delays, rewards=rewards)
    return _by_delay(jnp.where(d >= delays[:, None], rewards[:, None], 0), "monotone")


def pinwheel(delays: PerArm) -> SwitchingBandit:
    """Blocking arms that pay 1: with sum 1 / D = 1 an average of 1 needs a dense pinwheel schedule.

    Args: delays: D, [k], integers >= 2.
    Returns: SwitchingBandit, L = 1, M = max D - 1, monotone. Raises: ValueError: a delay that is no integer >= 2.
    Source: derived: docs/proofs/lsd.md#t9. Cost: k M.
    """
    _check_delays(delays)
    if np.ndim(delays) != 1:
        raise ValueError(f"delays: found {delays}, expected [k] integers of at least 2")
    return blocking(delays)


def tight(k: int) -> SwitchingBandit:
    """Identical arms that pay 1 after k - 1 rounds of rest: random phases earn 1 - (1 - 1/k)^k of the relaxation's 1.

    Args: k: arms, at least 2, static.
    Returns: SwitchingBandit, L = 1, M = k - 1, monotone. Source: derived: docs/proofs/lsd.md#t7. Cost: k^2.
    """
    k = check_integer("k", k, 2)
    return blocking(np.full(k, k))


def exp_recharge(time: PerArm, rewards: PerArm = 1.0, recovery: int = 16) -> SwitchingBandit:
    """Exponential recharging: H(d) = reward (1 - exp(-d / time)), concave.

    Args: time: c, [k] > 0; rewards: [k] in [0, 1]; recovery: M, static.
    Returns: SwitchingBandit, L = 1, monotone. Source: this project's family 3. Cost: k M.
    """
    _check("time", time, 0, open=True)
    _check("rewards", rewards, 0, 1)
    d = _delays(recovery, 0, "time")
    time, rewards = _arms(time=time, rewards=rewards)
    return _by_delay(_without_dents(-rewards[:, None] * jnp.expm1(-d / time[:, None])), "monotone")


def cap(time: PerArm, rewards: PerArm = 1.0, recovery: int | None = None) -> SwitchingBandit:
    """Linear recharging up to a cap: H(d) = reward min(d, time) / time, concave.

    Args: time: c, [k] >= 1; rewards: [k] in [0, 1]; recovery: M, static, ceil(max c) - 1 by default.
    Returns: SwitchingBandit, L = 1, monotone. Source: this project's family 4. Cost: k M.
    """
    _check("time", time, 1)
    _check("rewards", rewards, 0, 1)
    d = _delays(recovery, time, "time")
    time, rewards = _arms(time=time, rewards=rewards)
    return _by_delay(rewards[:, None] * (jnp.minimum(d, time[:, None]) / time[:, None]), "monotone")


def concave_random(key: Key[Array, ""], k: int, depth: int) -> SwitchingBandit:
    """Random concave recharging: increments of H are sorted cubes of uniforms, largest first, over `depth`.

    Args: key; k: arms; depth: D >= 2, delays 1 .. D; both static.
    Returns: SwitchingBandit, L = 1, M = D - 1, monotone. Source: this project's family 5. Cost: k D log D.
    """
    k, depth = check_integer("k", k, 1), check_integer("depth", depth, 2)
    steps = -jnp.sort(-(jax.random.uniform(key, (k, depth)) ** 3), axis=1)
    return _by_delay(_without_dents(jnp.cumsum(steps, axis=1) / depth), "monotone")


def satiation(decay: PerArm, rewards: PerArm = 1.0, depth: int = 4) -> SwitchingBandit:
    """Satiation that one pause cures: reward decay^j after j plays in a row, the full reward after any rest.

    Args: decay: gamma, [k] in [0, 1]; rewards: [k] in [0, 1]; depth: L, static.
    Returns: SwitchingBandit, M = 1, monotone. Source: this project's family 6. Cost: k L.
    """
    depth = check_integer("depth", depth, 1)
    _check("decay", decay, 0, 1)
    _check("rewards", rewards, 0, 1)
    decay, rewards = _arms(decay=decay, rewards=rewards)
    tired = rewards[:, None] * decay[:, None] ** jnp.arange(1.0, depth + 1)[None, :]
    rested = rewards[:, None]
    table = _without_dents(jnp.concatenate([tired[:, ::-1], rested], axis=1))
    return _build(table[:, depth:], table[:, :depth][:, ::-1], "monotone")


def hunger_satiation(
    decay: PerArm, time: PerArm, rewards: PerArm = 1.0, depth: int = 4, recovery: int = 8
) -> SwitchingBandit:
    """Hunger and satiation: exponential recharging in rest, geometric decay along a run.

    p(-j) = reward decay^j (1 - exp(-1 / time)), p(+s) = reward (1 - exp(-(s + 1) / time)).
    Args: decay: gamma, [k] in [0, 1]; time: c, [k] > 0; rewards: [k] in [0, 1]; depth: L, recovery: M, static.
    Returns: SwitchingBandit, monotone. Source: this project's family 7. Cost: k S.
    """
    depth, d = check_integer("depth", depth, 1), _delays(recovery, 0, "time")
    _check("decay", decay, 0, 1)
    _check("time", time, 0, open=True)
    _check("rewards", rewards, 0, 1)
    decay, time, rewards = _arms(decay=decay, time=time, rewards=rewards)
    charge = -rewards[:, None] * jnp.expm1(-d / time[:, None])
    tired = charge[:, :1] * decay[:, None] ** jnp.arange(1.0, depth + 1)[None, :]
    table = _without_dents(jnp.concatenate([tired[:, ::-1], charge[:, 1:]], axis=1))
    return _build(table[:, depth:], table[:, :depth][:, ::-1], "monotone")


def spike(delays: PerArm, recovery: int | None = None) -> SwitchingBandit:
    """Spikes: an arm pays 1 at exactly one delay and nothing earlier or later, the payoffs that break domination.

    Args: delays: d, [k], integers >= 2; recovery: M >= max d, static, max d by default.
    Returns: SwitchingBandit, L = 1, of no class. Raises: ValueError: a delay that is no integer >= 2, at which no play
      would ever pay, or a depth that would make the spike last.
    Source: derived: docs/proofs/lsd.md#t6, its falsifier. Cost: k M.
    """
    if not _traced(delays):
        _check_delays(delays)
        least = int(np.max(np.asarray(delays)))
        recovery = check_integer("recovery", least if recovery is None else recovery, least)
    d = _delays(recovery, delays, "delays")
    (delays,) = _arms(delays=delays)
    return _by_delay(jnp.where(d == delays[:, None], 1.0, 0.0), "arbitrary")


def momentum(plays: int = 9, k: int = 4, recovery: int = 1) -> SwitchingBandit:
    """Momentum: an arm pays 1 for the play after exactly `plays` plays in a row, else nothing.

    Args: plays: n >= 1; k: arms; recovery: M; all static.
    Returns: SwitchingBandit, L = n + 1 (so that playing on pays nothing), recovering; its relaxation is 1 / (n + 1).
    Source: derived: docs/proofs/lsd.md#t6, its falsifier. Cost: k S.
    """
    plays, k, recovery = (check_integer(name, x, 1) for name, x in (("plays", plays), ("k", k), ("recovery", recovery)))
    tired = np.zeros((k, plays + 1))
    tired[:, plays - 1] = 1
    return from_tables(np.zeros((k, recovery)), tired, payoff_class="recovering")


def interrupter(n: int = 4, payoff: Number = 0.02, recovery: int = 1) -> SwitchingBandit:
    """One arm that pays 1 after 19 plays in a row, and n arms of small payoff when rested, which cut its runs.

    Args: n: short arms, static; payoff: epsilon, theirs, float[] in [0, 1]; recovery: M, static.
    Returns: SwitchingBandit, k = n + 1, arm 0 the long one, L = 20, recovering.
    Source: derived: docs/proofs/lsd.md#t11, its falsifier. Cost: k S.
    """
    n, recovery = check_integer("n", n, 1), check_integer("recovery", recovery, 1)
    _check("payoff", payoff, 0, 1)
    tired = np.zeros((n + 1, 20))
    tired[0, 18] = 1
    long = np.arange(n + 1)[:, None] == 0
    rested = jnp.where(long, 0, _float(payoff))
    return _build(jnp.broadcast_to(rested, (n + 1, recovery)), jnp.asarray(tired, rested.dtype), "recovering")


def seasonal(period: PerArm, recovery: int | None = None) -> SwitchingBandit:
    """Seasons: p(+s) = (1 + cos(2 pi s / period)) / 2, nothing for a play right after a play.

    Args: period: P, [k] >= 1; recovery: M, static, max P rounded up by default (rested arms then pay 1).
    Returns: SwitchingBandit, L = 1, of no class. Source: this project's family 11. Cost: k M.
    """
    _check("period", period, 1)
    if recovery is None and not _traced(period):
        recovery = int(np.ceil(np.max(np.asarray(period, float))))
    d = _delays(recovery, period, "period")
    (period,) = _arms(period=period)
    rested = (1 + jnp.cos(2 * jnp.pi * (d[:, 1:] - 1) / period[:, None])) / 2
    return _build(rested, jnp.zeros_like(rested[:, :1]), "arbitrary")


def greedy_trap(epsilon: Number = 0.05) -> SwitchingBandit:
    """Two arms on which greedy earns 2 epsilon a round and alternation (0.95 + epsilon) / 2.

    Args: epsilon: float[] in [0, 0.475].
    Returns: SwitchingBandit, k = 2, M = L = 1, monotone. Source: derived: docs/proofs/lsd.md#t8. Cost: O(1).
    """
    _check("epsilon", epsilon, 0, 0.475)
    epsilon = _float(epsilon)
    rested = jnp.stack([epsilon, jnp.full_like(epsilon, 0.95)])[:, None]
    return _build(rested, jnp.stack([epsilon, 2 * epsilon])[:, None], "monotone")


def laforgue_main() -> SwitchingBandit:
    """The main experiment of the LSD paper: five arms by delay 1 .. 10, one spike at delay 3, one step at delay 9.

    Returns: SwitchingBandit, k = 5, L = 1, M = 9, of no class; one arm must be played every round, all start as just
      played.
    Source: released code of Laforgue et al. (2022), arXiv 2110.11819. Cost: O(1).
    """
    means = np.full((5, 10), 0.15)
    means[1] = 0
    means[1, 2] = 0.95
    means[2] = 0.14
    means[2, 5] = 0.16
    means[2, 8:] = 0.96
    return from_delays(means, allow_idle=False, start="just")


def laforgue_supplement() -> SwitchingBandit:
    """The supplement's experiment of the LSD paper: a constant arm and one that pays 0.95 from delay 2 on.

    Returns: SwitchingBandit, k = 2, L = 1, M = 10, monotone; one arm must be played every round, both start as just
      played.
    Source: released code of Laforgue et al. (2022), arXiv 2110.11819. Cost: O(1).
    """
    means = np.full((2, 11), 0.05)
    means[1] = 0.95
    means[1, 0] = 0.06
    return from_delays(means, allow_idle=False, start="just", payoff_class="monotone")


def reference() -> SwitchingBandit:
    """The reference instance Q: three arms, M = 4, L = 2, relaxation 0.68 at the price 0.1, optimum 0.673333.

    Returns: SwitchingBandit, monotone. Source: made up by this project; its numbers are recomputed in tests/rlcore/lsd.
    """
    rested = [[0.5, 0.7, 0.8, 0.9], [0.3, 0.6, 0.9, 0.9], [0.2, 0.2, 0.2, 1.0]]
    return from_tables(rested, [[0.3, 0.1], [0.2, 0.0], [0.1, 0.05]], payoff_class="monotone")


FAMILIES = {
    "blocking": blocking,
    "cap": cap,
    "concave_random": concave_random,
    "exp_recharge": exp_recharge,
    "greedy_trap": greedy_trap,
    "hunger_satiation": hunger_satiation,
    "interrupter": interrupter,
    "laforgue_main": laforgue_main,
    "laforgue_supplement": laforgue_supplement,
    "momentum": momentum,
    "pinwheel": pinwheel,
    "reference": reference,
    "satiation": satiation,
    "scaled": scaled,
    "seasonal": seasonal,
    "sparse": sparse,
    "spike": spike,
    "tight": tight,
    "uniform": uniform,
}
