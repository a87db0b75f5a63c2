"""The BRIDGE file format: one deterministic MDP per `.npz`, arrays `transitions` and `rewards`."""

import os
import tempfile
from pathlib import Path

import numpy as np

from rlcore.mdp import MDP, tabular

__all__ = ["load_bridge", "save_bridge"]


def load_bridge(path: str | os.PathLike, horizon: int | None) -> MDP:
    """Read a BRIDGE table.

    Args:
      path: an `.npz` with `transitions` int[S, A] (the next state, -1 ends the episode) and `rewards` float[S, A];
        other arrays (`screens`, `states`, ...) are not read. The initial state is 0.
      horizon: steps per episode; the format does not store it (100 for the MiniGrid tables). None for no limit.

    Returns: a deterministic undiscounted MDP, [S, A, B=1], floats of JAX's default dtype.
    Raises:
      FileNotFoundError: no such file.
      ValueError: not an npz file, truncated or corrupt, an array missing, of the wrong kind or shape, an index
        outside [-1, S), a reward that is not finite.
    Source: BRIDGE data set (Laidlaw, Russell and Dragan 2023), its README, as in the BRIDGE/SQIRL specification.
    Cost: O(S A), on the host.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("a single array, not an npz archive")
            missing = sorted({"transitions", "rewards"} - set(archive.files))
            if missing:
                raise ValueError(f"an archive without {', '.join(missing)}")
            transitions, rewards = archive["transitions"], archive["rewards"]
            if not (isinstance(transitions, np.ndarray) and isinstance(rewards, np.ndarray)):
                raise ValueError("an archive whose members are no arrays")
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged zip header raises nearly anything, down to MemoryError and RuntimeError
        raise ValueError(
            f"path: found {path} ({error}), expected a BRIDGE npz file with transitions and rewards"
        ) from error
    if transitions.ndim != 2 or 0 in transitions.shape or transitions.dtype.kind not in "iu":
        raise ValueError(
            f"transitions: found {transitions.dtype}{list(transitions.shape)} in {path}, expected int[S, A], S, A >= 1"
        )
    if rewards.shape != transitions.shape or rewards.dtype.kind != "f":
        raise ValueError(
            f"rewards: found {rewards.dtype}{list(rewards.shape)} in {path}, expected float{list(transitions.shape)}"
        )
    num_states = len(transitions)
    bad = np.argwhere((transitions < -1) | (transitions >= num_states))
    if len(bad):
        state, action = map(int, bad[0])
        raise ValueError(
            f"transitions: found {transitions[state, action]} at state {state}, action {action} in {path}, "
            f"expected -1 or a state below {num_states}"
        )
    if not np.all(np.isfinite(rewards)):
        state, action = map(int, np.argwhere(~np.isfinite(rewards))[0])
        raise ValueError(
            f"rewards: found {rewards[state, action]} at state {state}, action {action} in {path}, expected finite"
        )
    ends = transitions == -1
    stay = np.arange(num_states)[:, None]
    return tabular(
        np.where(ends, stay, transitions)[..., None].astype(np.int32),
        np.ones((*transitions.shape, 1)),
        rewards[..., None].astype(np.float64),
        terminal=ends[..., None],
        discount=1.0,
        horizon=horizon,
        initial=np.eye(1, num_states)[0],
    )


def save_bridge(path: str | os.PathLike, mdp: MDP) -> None:
    """Write a deterministic MDP as a BRIDGE table, all of it or nothing.

    Args:
      path: where; an existing file is replaced in one step.
      mdp: a single MDP whose pairs all have one outcome of positive probability, start in state 0, every action
        available. Horizon and discount are not part of the format and are lost; rewards are rounded to float32.

    Raises: ValueError naming what the format cannot hold.
    Source: as `load_bridge`.
    Cost: O(S A B), on the host.
    """
    path = Path(path)
    prob, initial = np.asarray(mdp.prob), np.asarray(mdp.initial)
    if prob.ndim != 3:
        raise ValueError(f"mdp: found prob of shape {prob.shape}, expected one MDP, [S, A, B]")
    if not np.all(np.asarray(mdp.available)):
        raise ValueError("mdp: found actions that are not available, expected every action available")
    if initial[0] != 1:
        raise ValueError(f"mdp: found initial probability {initial[0]} of state 0, expected 1")
    if not np.all(np.sum(prob > 0, axis=2) == 1):
        state, action = map(int, np.argwhere(np.sum(prob > 0, axis=2) != 1)[0])
        raise ValueError(f"mdp: found a random outcome at state {state}, action {action}, expected a deterministic MDP")
    pick = np.argmax(prob, axis=2)[..., None]

    def chosen(values) -> np.ndarray:
        return np.take_along_axis(np.asarray(values), pick, axis=2)[..., 0]

    transitions = np.where(chosen(mdp.terminal), -1, chosen(mdp.next_state)).astype(np.int64)
    rewards = chosen(mdp.reward)
    if not np.all(np.abs(rewards) <= np.finfo(np.float32).max):
        raise ValueError(f"mdp: found a reward of size {np.max(np.abs(rewards))}, expected what float32 holds")
    rewards = rewards.astype(np.float32)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, transitions=transitions, rewards=rewards)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
