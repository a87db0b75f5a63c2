"""Families of preference matrices, ways to corrupt their labels, and sampled preferences.

Every family returns P, float[n, n] with P[i, j] = Prob(i beats j) and P + P^T = 1 up to one rounding; hand it to
`rlcore.nash.preference_game`. Random families take a key first. Sizes are static; keys and numbers may be traced, so
`jax.vmap` makes batches. Out-of-range numbers raise when they are concrete, and are the caller's promise when traced.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rlcore.nash.game import PreferenceGame, log_normalise
from rlcore.nash.oracle import bernoulli, estimate_win_rates
from rlcore.types import Array, Float, Int, Key, Number

__all__ = [
    "FAMILIES",
    "NOISE",
    "adversarial_annotator",
    "bernoulli",
    "bt",
    "circulant",
    "condorcet_cycle",
    "dice",
    "elo_constrained",
    "estimate_win_rates",
    "flip",
    "gpm",
    "heteroscedastic",
    "linear_lowrank",
    "mixture",
    "mostly_dominated",
    "near_tie",
    "perturbed_rps",
    "position_bias",
    "random_bt",
    "random_game",
    "random_skew",
    "roshambo",
    "roshambo_bots",
    "rps",
    "spinning_top",
    "symmetrise",
    "three_type",
    "tournament",
    "weighted_rps",
]


def _check(name: str, x, low: Number, high: Number) -> None:
    if not isinstance(x, jax.core.Tracer):
        values = np.asarray(x)
        if not np.all((values >= low) & (values <= high)):
            raise ValueError(f"{name}: found {x}, expected a number in [{low}, {high}]")


def _check_size(name: str, n: int, least: int, odd: bool = False) -> None:
    if n < least or (odd and n % 2 == 0):
        raise ValueError(f"{name}: found {n}, expected an {'odd ' if odd else ''}integer >= {least}")


def _float(x: Number) -> Float[Array, ""]:
    """A float array of the argument's own type, or of the default one for Python numbers and integers."""
    return 1.0 * jnp.asarray(x)


def _skew(entries: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The skew-symmetric matrix with the strict lower triangle of `entries`."""
    lower = jnp.tril(entries, -1)
    return lower - lower.T


def _logistic(score: Float[Array, "n n"]) -> Float[Array, "n n"]:
    # tanh is odd in floating point too, so P + P^T = 1 holds to one rounding.
    return 0.5 + 0.5 * jnp.tanh(score / 2)


def bt(rewards: Float[Array, " n"]) -> Float[Array, "n n"]:
    """Bradley-Terry: P[i, j] = sigmoid(rewards[i] - rewards[j]).

    Args: rewards: float[n], in logits.
    Returns: float[n, n]; transitive, the equilibrium at temperature 0 is the action of largest reward.
    Source: Bradley and Terry (1952). Cost: n^2.
    """
    return _logistic(rewards[:, None] - rewards[None, :])


def random_bt(key: Key[Array, ""], n: int, scale: Number = 1.0) -> Float[Array, "n n"]:
    """Bradley-Terry with normal rewards of standard deviation `scale`.

    Args: key; n: actions, static; scale: float[], in logits.
    Returns: float[n, n]. Source: derived: `bt`. Cost: n^2.
    """
    _check_size("n", n, 1)
    return bt(scale * jax.random.normal(key, (n,)))


def weighted_rps(w12: Number, w23: Number, w31: Number) -> Float[Array, "3 3"]:
    """Rock-paper-scissors with a margin per pair: 1 beats 2 by w12, 2 beats 3 by w23, 3 beats 1 by w31.

    Args: w12, w23, w31: float[] in (0, 1/2].
    Returns: float[3, 3]; without temperature the equilibrium is proportional to (w23, w31, w12).
    Source: derived: kernel of a skew-symmetric matrix. Cost: O(1).
    """
    for name, w in (("w12", w12), ("w23", w23), ("w31", w31)):
        _check(name, w, 0, 0.5)
    w12, w23, w31 = (_float(w) for w in (w12, w23, w31))
    zero = jnp.zeros_like(w12)
    return 0.5 + jnp.stack([jnp.stack([zero, w12, -w31]), jnp.stack([-w12, zero, w23]), jnp.stack([w31, -w23, zero])])


def rps(strength: Number = 0.5) -> Float[Array, "3 3"]:
    """Rock-paper-scissors: 1 beats 2 beats 3 beats 1, each with probability 1/2 + strength.

    Args: strength: float[] in [0, 1/2].
    Returns: float[3, 3]; for a uniform reference the equilibrium is uniform at every temperature.
    Source: derived: symmetry. Cost: O(1).
    """
    _check("strength", strength, 0, 0.5)
    return weighted_rps(strength, strength, strength)


def perturbed_rps() -> Float[Array, "3 3"]:
    """The perturbed rock-paper-scissors of magnetic mirror descent, payoffs +-3, +-1 mapped to [0, 1].

    Returns: float[3, 3].
    Source: Sokota et al. (2023), arXiv 2206.05825, released code; P = (payoff + 3) / 6. Cost: O(1).
    """
    return (jnp.array([[0.0, -3, 3], [3, 0, -1], [-3, 1, 0]]) + 3) / 6


def circulant(n: int, strength: Number = 0.5) -> Float[Array, "n n"]:
    """A regular cycle: each action beats the next (n - 1) / 2 ones, cyclically, with probability 1/2 + strength.

    Args: n: odd, static; strength: float[] in [0, 1/2].
    Returns: float[n, n]; for a uniform reference the equilibrium is uniform.
    Raises: ValueError for even n. Source: derived: symmetry. Cost: n^2.
    """
    _check_size("n", n, 1, odd=True)
    _check("strength", strength, 0, 0.5)
    ahead = (np.arange(n)[None, :] - np.arange(n)[:, None]) % n
    sign = np.where(ahead == 0, 0.0, np.where(ahead <= (n - 1) // 2, 1.0, -1.0))
    strength = _float(strength)
    return 0.5 + strength * jnp.asarray(sign, strength.dtype)


def random_skew(key: Key[Array, ""], n: int) -> Float[Array, "n n"]:
    """Independent uniform probabilities: P[i, j] ~ U(0, 1) for i > j.

    Args: key; n: static.
    Returns: float[n, n]. Source: Zhou, Fazel and Du (2025), arXiv 2503.08942, released simulations. Cost: n^2.
    """
    _check_size("n", n, 1)
    return 0.5 + _skew(jax.random.uniform(key, (n, n)) - 0.5)


def tournament(key: Key[Array, ""], n: int, win: Number = 1.0) -> Float[Array, "n n"]:
    """A random tournament: every pair has a random winner, who wins with probability `win`.

    Args: key; n: static; win: float[] in [1/2, 1].
    Returns: float[n, n]; some action beats all others with probability n / 2^(n - 1).
    Source: derived: definition. Cost: n^2.
    """
    _check_size("n", n, 1)
    _check("win", win, 0.5, 1)
    sign = jnp.where(jax.random.bernoulli(key, 0.5, (n, n)), 1.0, -1.0)
    return 0.5 + (win - 0.5) * _skew(sign)


def _low_rank_skew(key, n, k):
    """Sum of k planes a b^T - b a^T over normal embeddings, entries of unit variance."""
    _check_size("n", n, 1)
    _check_size("k", k, 1)
    a, b = jax.random.normal(key, (2, n, k))
    product = jnp.matmul(a, b.T, precision="highest")
    return (product - product.T) / np.sqrt(2 * k)


def gpm(key: Key[Array, ""], n: int, k: int = 1, scale: Number = 1.0) -> Float[Array, "n n"]:
    """General preference model: logistic of a skew-symmetric score of rank at most 2 k.

    Args: key; n, k: static; scale: float[], standard deviation of the scores in logits.
    Returns: float[n, n]. Source: Zhang et al. (2025), arXiv 2410.02197, section 4; normal embeddings. Cost: n^2 k.
    """
    return _logistic(scale * _low_rank_skew(key, n, k))


def linear_lowrank(key: Key[Array, ""], n: int, k: int = 1) -> Float[Array, "n n"]:
    """Bilinear preferences: P - 1/2 of rank at most 2 k, scaled so that the surest preference is 0 or 1.

    Args: key; n >= 2, k: static.
    Returns: float[n, n]. Source: derived: features phi, skew S, P - 1/2 = phi S phi^T. Cost: n^2 k.
    """
    _check_size("n", n, 2)
    score = _low_rank_skew(key, n, k)
    return 0.5 + score / (2 * jnp.max(jnp.abs(score)))


def mixture(shares: Float[Array, " U"], rewards: Float[Array, "U n"]) -> Float[Array, "n n"]:
    """A population of Bradley-Terry annotators: may be cyclic although each of them is transitive.

    Args: shares: float[U], non-negative, sum 1; rewards: float[U, n], in logits (large ones give hard rankings).
    Returns: float[n, n]. Raises: ValueError for concrete shares that do not sum to 1.
    Source: Chakraborty et al. (2024), arXiv 2402.08925. Cost: U n^2.
    """
    _check("shares", shares, 0, 1)
    if not isinstance(shares, jax.core.Tracer):
        total = float(np.sum(np.asarray(shares)))
        if abs(total - 1) > 8 * jnp.finfo(shares.dtype).eps * shares.shape[0]:
            raise ValueError(f"shares: found sum {total}, expected 1")
    margins = jax.vmap(bt)(rewards) - 0.5
    return 0.5 + jnp.sum(shares[:, None, None] * margins, axis=0)


def three_type(excess: Number = 0.0) -> Float[Array, "3 3"]:
    """Three types of annotators; type u surely prefers action u + 1 to u (cyclically), else is indifferent.

    Args: excess: float[] e in [-2/3, 1/3]; the types' shares are (1/3 - e, 1/3 + e/2, 1/3 + e/2).
    Returns: float[3, 3]; without temperature the equilibrium is (1/3 + e/2, 1/3 + e/2, 1/3 - e), while the action of
      best mean win rate jumps from 2 (e < 0) to 1 (e > 0).
    Source: Munos et al. (2023), arXiv 2312.00886, section on diversity, as quoted. Cost: O(1).
    """
    _check("excess", excess, -2 / 3, 1 / 3)
    e = _float(excess)
    a, b = (1 / 3 - e) / 2, (1 / 3 + e / 2) / 2
    zero = jnp.zeros_like(e)
    return 0.5 + jnp.stack([jnp.stack([zero, -a, b]), jnp.stack([a, zero, -b]), jnp.stack([-b, b, zero])])


def dice(faces=((2, 4, 9), (1, 6, 8), (3, 5, 7))) -> Float[Array, "n n"]:
    """Dice: the larger roll wins, a tie counts one half. The default ones cycle with probability 5/9.

    Args: faces: number[n, f], concrete.
    Returns: float[n, n]. Raises: ValueError unless `faces` is a non-empty table.
    Source: Munos et al. (2023), arXiv 2312.00886, as quoted. Cost: n^2 f^2.
    """
    faces = np.asarray(faces)
    if faces.ndim != 2 or faces.size == 0:
        raise ValueError(f"faces: found shape {faces.shape}, expected (dice, faces)")
    difference = faces[:, None, :, None] - faces[None, :, None, :]
    return 0.5 + jnp.asarray(np.sum(np.sign(difference), axis=(2, 3)) / (2 * faces.shape[1] ** 2))


def elo_constrained() -> Float[Array, "3 3"]:
    """Bradley-Terry with ratings (0, log 9, log 2), of interest under the constraint pi_1 = 2 pi_2.

    Among the policies (2 x, x, 1 - 3 x), the one of largest mean rating, (2/3, 1/3, 0), loses to (0, 0, 1) with
    probability 50/99: a reward does not represent preferences between policies. The constraint is the reader's to
    impose; solvers here work on the whole simplex.

    Returns: float[3, 3]. Source: Munos et al. (2023), arXiv 2312.00886, as quoted. Cost: O(1).
    """
    return bt(jnp.log(jnp.array([1.0, 9.0, 2.0])))


def condorcet_cycle(n: int, lead: Number = 0.05, strength: Number = 0.5) -> Float[Array, "n n"]:
    """One action beats all others by `lead`; the others form `circulant(n - 1, strength)`.

    Args: n: even, static; lead, strength: float[] in [0, 1/2].
    Returns: float[n, n]; without temperature and for lead > 0 the equilibrium is action 0.
    Raises: ValueError for odd n. Source: derived: definition. Cost: n^2.
    """
    _check_size("n - 1", n - 1, 1, odd=True)
    _check("lead", lead, 0, 0.5)
    cycle = circulant(n - 1, strength)
    return _dominating_block(jnp.full((1, 1), 0.5, cycle.dtype), cycle, lead)


def mostly_dominated(n: int, m: int = 3, strength: Number = 0.5, lead: Number = 0.25) -> Float[Array, "n n"]:
    """A core `circulant(m, strength)` that beats the n - m other actions by `lead`; those tie with each other.

    Args: n, m: static, m odd and <= n; strength, lead: float[] in [0, 1/2].
    Returns: float[n, n]; without temperature only the core is played, at small ones the rest is exponentially rare.
    Raises: ValueError for an even m or m > n. Source: derived: definition. Cost: n^2.
    """
    _check_size("n - m", n - m, 0)
    _check("lead", lead, 0, 0.5)
    core = circulant(m, strength)
    return _dominating_block(core, jnp.full((n - m, n - m), 0.5, core.dtype), lead)


def _dominating_block(first, second, lead):
    """The actions of `first` beat those of `second` by `lead`."""
    advantage = jnp.asarray(lead, first.dtype) * jnp.ones((first.shape[0], second.shape[0]), first.dtype)
    return jnp.block([[first, 0.5 + advantage], [0.5 - advantage.T, second]])


def near_tie(key: Key[Array, ""], n: int, scale: Number = 1e-3) -> Float[Array, "n n"]:
    """`random_skew` with all margins multiplied by `scale`.

    Args: key; n: static; scale: float[] in [0, 1].
    Returns: float[n, n]. Source: derived: definition. Cost: n^2.
    """
    _check("scale", scale, 0, 1)
    return 0.5 + scale * (random_skew(key, n) - 0.5)


def spinning_top(
    key: Key[Array, ""], n: int, slope: Number = 4.0, cycle: Number = 2.0, decay: Number = 3.0
) -> Float[Array, "n n"]:
    """A transitive ladder whose cyclic part dies out towards the top.

    The score is slope (s_i - s_j) + cycle exp(-decay (s_i + s_j) / 2) C_ij, with skills s from 1 (action 0) to 0 and
    C skew-symmetric, uniform in [-1, 1]; P is its logistic.

    Args: key; n: static; slope, cycle: float[], in logits; decay: float[] >= 0.
    Returns: float[n, n]. Source: derived: after the picture of Czarnecki et al. (2020), arXiv 2004.09468. Cost: n^2.
    """
    _check_size("n", n, 1)
    skill = jnp.linspace(1.0, 0.0, n)
    damping = jnp.exp(-decay * skill / 2)
    cyclic = _skew(jax.random.uniform(key, (n, n), minval=-1.0, maxval=1.0))
    return _logistic(slope * (skill[:, None] - skill[None, :]) + cycle * damping[:, None] * damping[None, :] * cyclic)


ROSHAMBO = Path(__file__).parent / "data" / "roshambo.csv"


def roshambo_bots() -> tuple[str, ...]:
    """The names of the 43 programs of `roshambo`, in its order.

    Returns: 43 names. Source: OpenSpiel 2.0.2. Cost: reads 8 kB.
    """
    return tuple(ROSHAMBO.read_text().splitlines()[1].split(","))


def roshambo() -> Float[Array, "43 43"]:
    """OpenSpiel's 43 rock-paper-scissors programs: share of 1000 throws that the row wins, a tie counting one half.

    One match per pair: a share has standard deviation up to 0.016 (0.013 for random throws).

    Returns: float[43, 43]; the order is `roshambo_bots()`.
    Raises: ValueError if the stored table is damaged.
    Source: computed by `envs/make_roshambo.py` with open_spiel 2.0.2; the programs are from the International RoShamBo
      Programming Competitions of 1999 and 2000. Cost: reads 8 kB.
    """
    lines = ROSHAMBO.read_text().splitlines()[1:]
    margins = np.array([row.split(",") for row in lines[1:]], np.int64)
    if margins.shape != (43, 43) or np.any(margins != -margins.T) or np.max(np.abs(margins)) > 1000:
        raise ValueError(f"{ROSHAMBO}: found a damaged table of shape {margins.shape}, expected 43 x 43 skew margins")
    return jnp.asarray(0.5 + margins / 2000)


FAMILIES = {
    "bt": bt,
    "circulant": circulant,
    "condorcet_cycle": condorcet_cycle,
    "dice": dice,
    "elo_constrained": elo_constrained,
    "gpm": gpm,
    "linear_lowrank": linear_lowrank,
    "mixture": mixture,
    "mostly_dominated": mostly_dominated,
    "near_tie": near_tie,
    "perturbed_rps": perturbed_rps,
    "random_bt": random_bt,
    "random_skew": random_skew,
    "roshambo": roshambo,
    "rps": rps,
    "spinning_top": spinning_top,
    "three_type": three_type,
    "tournament": tournament,
    "weighted_rps": weighted_rps,
}


def flip(preference: Float[Array, "n n"], rate: Number) -> Float[Array, "n n"]:
    """Every label is reversed with probability `rate`: the margins shrink by 1 - 2 rate.

    Args: preference: float[n, n]; rate: float[] in [0, 1].
    Returns: float[n, n], a valid preference. Source: derived: definition. Cost: n^2.
    """
    _check("rate", rate, 0, 1)
    return 0.5 + (1 - 2 * rate) * (preference - 0.5)


def heteroscedastic(key: Key[Array, ""], preference: Float[Array, "n n"], largest: Number) -> Float[Array, "n n"]:
    """Every pair has its own label reversal rate, uniform in [0, largest] and symmetric.

    Args: key; preference: float[n, n]; largest: float[] in [0, 1].
    Returns: float[n, n], a valid preference with another equilibrium. Source: derived: definition. Cost: n^2.
    """
    _check("largest", largest, 0, 1)
    lower = jnp.tril(jax.random.uniform(key, preference.shape, preference.dtype), -1)
    return 0.5 + (1 - 2 * largest * (lower + lower.T)) * (preference - 0.5)


def adversarial_annotator(
    preference: Float[Array, "n n"], share: Number, target: int | Int[Array, ""]
) -> Float[Array, "n n"]:
    """A share of the annotators always votes for one action, and tosses a coin between the others.

    Args: preference: float[n, n]; share: float[] in [0, 1]; target: int, the promoted action.
    Returns: float[n, n], a valid preference. Source: derived: definition. Cost: n^2.
    """
    _check("share", share, 0, 1)
    _check("target", target, 0, preference.shape[0] - 1)
    here = (jnp.arange(preference.shape[0]) == target).astype(preference.dtype)
    return 0.5 + (1 - share) * (preference - 0.5) + share * 0.5 * (here[:, None] - here[None, :])


def position_bias(preference: Float[Array, "n n"], bias: Number) -> Float[Array, "n n"]:
    """Labels that favour whichever action is shown first: sigmoid(logit(P) + bias).

    The result is NOT a preference game: P + P^T != 1 and the diagonal is sigmoid(bias). `symmetrise` is what random
    order of presentation gives.

    Args: preference: float[n, n]; bias: float[], in logits.
    Returns: float[n, n], Prob(row wins | row shown first). Source: derived: definition. Cost: n^2.
    """
    return jax.nn.sigmoid(jax.scipy.special.logit(preference) + bias)


def symmetrise(first_wins: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The preference under random order of presentation: (M + 1 - M^T) / 2.

    Args: first_wins: float[n, n], Prob(row wins | row shown first).
    Returns: float[n, n], a valid preference. Source: derived: definition. Cost: n^2.
    """
    return 0.5 + (first_wins - first_wins.T) / 2


NOISE = {
    "adversarial_annotator": adversarial_annotator,
    "flip": flip,
    "heteroscedastic": heteroscedastic,
    "position_bias": position_bias,
}


def random_game(
    key: Key[Array, ""],
    n: int,
    *,
    temperature: Number | None = None,
    reference_scale: Number | None = None,
    start_scale: Number = 2.0,
) -> tuple[PreferenceGame, Float[Array, " n"]]:
    """A random game and a random start: the generator behind the ledger's statements.

    Args:
      key; n: actions, static.
      temperature: float[] > 0; None draws it log-uniformly from [0.03, 2].
      reference_scale: float[], standard deviation of the reference's logits; None draws it from {0, 1, 2}.
      start_scale: float[], standard deviation of the start's logits.

    Returns: (game with `random_skew` preference, start): the start is float[n], log-probabilities.
    Source: derived: uniform preferences as in the released simulations of Zhou, Fazel and Du (2025). Cost: n^2.
    """
    preference_key, reference_key, scale_key, temperature_key, start_key = jax.random.split(key, 5)
    preference = random_skew(preference_key, n)
    dtype = preference.dtype
    if reference_scale is None:
        reference_scale = jax.random.randint(scale_key, (), 0, 3).astype(dtype)
    if temperature is None:
        low, high = np.log(0.03), np.log(2.0)
        temperature = jnp.exp(jax.random.uniform(temperature_key, (), dtype, low, high))
    reference = log_normalise(reference_scale * jax.random.normal(reference_key, (n,), dtype))
    start = log_normalise(start_scale * jax.random.normal(start_key, (n,), dtype))
    return PreferenceGame(preference, reference, jnp.asarray(temperature, dtype)), start
