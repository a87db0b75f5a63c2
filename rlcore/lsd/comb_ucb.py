"""Block learners: every d rounds, play the best block at upper bounds of the payoffs (combinatorial UCB)."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlcore.lsd.block import block_optimum
from rlcore.lsd.estimates import Estimates, no_estimates, upper_bound
from rlcore.lsd.problem import SwitchingBandit
from rlcore.pytree import pytree, static
from rlcore.types import Array, Bool, Float, Int, Key, Number

__all__ = ["BlockUCB", "calibrated_ucb1", "comb_ucb1", "isi_comb_ucb1"]

CALIBRATIONS = ("none", "rising", "falling")


class BlockUCBState(NamedTuple):
    """estimates; arms: int32[d], the block's plan; pulled: bool[k], in this block; credited: bool[k], whose reward of
    the round just decided is learned from."""

    estimates: Estimates
    arms: Array
    pulled: Array
    credited: Array


@pytree
class BlockUCB:
    """CombUCB1 on blocks; `isi_comb_ucb1`, `comb_ucb1` and `calibrated_ucb1` name the published variants.

    length: d, rounds planned at once. first: "ignored", first pulls of a block neither count nor teach, or "known",
    they count as the arms' states say. calibration: before every block each arm is played once in "rising" or "falling"
    order, without learning; "none". depth: rest states told apart, longer rests are taken as that; None, all. All
    static. confidence: c of the index mean + sqrt(c log t / n), d sqrt(c log(k d)) where nothing was seen.
    Source: Laforgue et al. (2022), arXiv 2110.11819, released code; here the block is planned exactly and all indices
      are fresh at every block (theirs: a greedy prefix led by linear programmes; stale indices off the current states).
    Cost: one `block_optimum` per block, k S per round.
    """

    length: int = static()
    first: str = static("ignored")
    calibration: str = static("none")
    depth: int | None = static(None)
    confidence: Number = 1.5

    def init(self, problem: SwitchingBandit, key: Key[Array, ""]) -> BlockUCBState:
        """Nothing seen. Raises: ValueError: an option that is none, a length or depth below 1."""
        for name, found, allowed in (
            ("first", self.first, ("ignored", "known")),
            ("calibration", self.calibration, CALIBRATIONS),
        ):
            if found not in allowed:
                raise ValueError(f"{name}: found {found!r}, expected one of {allowed}")
        for name, x in (("length", self.length), ("depth", 1 if self.depth is None else self.depth)):
            if x < 1:
                raise ValueError(f"{name}: found {x}, expected an integer of at least 1")
        nobody = jnp.zeros(problem.num_arms, bool)
        return BlockUCBState(no_estimates(problem), jnp.zeros(self.length, jnp.int32), nobody, nobody)

    def act(
        self,
        problem: SwitchingBandit,
        state: BlockUCBState,
        local: Int[Array, " k"],
        t: Int[Array, ""],
        key: Key[Array, ""],
    ) -> tuple[Bool[Array, " k"], BlockUCBState]:
        """The plan's arm, or the calibration's; a new plan where a block begins."""
        k = problem.num_arms
        warm = 0 if self.calibration == "none" else k
        at = t % (warm + self.length)

        def renew(state: BlockUCBState) -> BlockUCBState:
            log = jnp.log(jnp.maximum(t, 1).astype(state.estimates.count.dtype))
            unseen = self.length * jnp.sqrt(self.confidence * math.log(k * self.length))
            bound = upper_bound(self._merged(problem, state.estimates), self.confidence * log, unseen)
            known = dataclasses.replace(problem, payoffs=bound.astype(problem.payoffs.dtype))
            plan = block_optimum(known, self.length, local if self.first == "known" else None)
            return state._replace(arms=plan.arms, pulled=jnp.zeros(k, bool))

        state = jax.lax.cond(at == warm, renew, lambda s: s, state)
        arm = state.arms[jnp.maximum(at - warm, 0)]
        if warm:
            arm = jnp.where(at < warm, at if self.calibration == "rising" else k - 1 - at, arm)
        played = jnp.arange(k, dtype=jnp.int32) == arm
        credited = state.pulled if self.first == "ignored" else jnp.broadcast_to(at >= warm, (k,))
        return played, state._replace(pulled=state.pulled | played, credited=credited)

    def learn(
        self, state: BlockUCBState, local: Int[Array, " k"], played: Bool[Array, " k"], reward: Float[Array, " k"]
    ) -> BlockUCBState:
        """One round more in the estimates, where it is credited."""
        return state._replace(estimates=state.estimates.seen(local, played & state.credited, reward))

    def _merged(self, problem: SwitchingBandit, estimates: Estimates) -> Estimates:
        """The estimates with all rests of `depth` rounds and more taken as one state."""
        if self.depth is None or self.depth >= problem.recovery:
            return estimates
        deepest = problem.satiation + self.depth - 1

        def pool(x: Float[Array, "k S"]) -> Float[Array, "k S"]:
            pooled = jnp.sum(x[:, deepest:], axis=1, keepdims=True)
            return jnp.concatenate([x[:, :deepest], jnp.broadcast_to(pooled, x[:, deepest:].shape)], axis=1)

        return Estimates(pool(estimates.count), pool(estimates.total))


def isi_comb_ucb1(length: int, confidence: Number = 1.5) -> BlockUCB:
    """ISI-CombUCB1: blocks planned and learned from without their first pulls. Source: as `BlockUCB`."""
    return BlockUCB(length, "ignored", confidence=confidence)


def comb_ucb1(length: int, confidence: Number = 1.5) -> BlockUCB:
    """CombUCB1 on blocks: first pulls count by current states; delays up to d are told apart. Source: as `BlockUCB`."""
    return BlockUCB(length, "known", depth=max(length - 1, 1), confidence=confidence)


def calibrated_ucb1(length: int, num_arms: int, order: str, confidence: Number = 1.5) -> BlockUCB:
    """CombUCB1 after a calibration: before every block each arm is played once, in "rising" or "falling" order.

    Args: num_arms: k; delays up to d + k are told apart. Source: as `BlockUCB`; "CS-worst" and "CS-best" of the code
      are rising and falling, by what they do to its main instance.
    """
    return BlockUCB(length, "known", order, depth=length + num_arms - 1, confidence=confidence)
