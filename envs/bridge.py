"""The BRIDGE file formats: one deterministic MDP per `.npz`, and a summary `.csv` with a line per MDP."""

import csv
import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rlcore.mdp import MDP, tabular

__all__ = ["load_bridge", "load_bridge_summary", "save_bridge", "save_bridge_summary"]

# Columns of the summary files that hold numbers; a sample complexity is infinite where no run succeeded.
NUMBERS = frozenset(
    [
        "k_min",
        "epw",
        "effective_horizon",
        "effective_horizon_simple",
        "reward_factor",
        "num_states",
        "reward_random",
        "reward_sqirl",
        "sample_complexity_ppo",
        "sample_complexity_dqn",
        "sample_complexity_gorp",
        "sample_complexity_gorp_k_1",
        "sample_complexity_sqirl",
    ]
)


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
    buffer = io.BytesIO()
    np.savez_compressed(buffer, transitions=transitions, rewards=rewards)
    _write(path, buffer.getvalue())


def load_bridge_summary(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read a summary file: analyses and sample complexities, a line per MDP.

    Args:
      path: a `.csv` with one line of column names. Infinite numbers are `inf`, missing ones an empty cell.

    Returns: {column: array over lines}; float64 for the columns of `NUMBERS` (NaN where missing) and every other column
      all of whose cells are numbers, text for the rest.
    Raises:
      FileNotFoundError: no such file.
      ValueError: not UTF-8, no line of names, a name that is empty or occurs twice, no line of an MDP; with its line, a
        line of another length or a number that is none.
    Source: BRIDGE data set, its README, as in the BRIDGE/SQIRL specification, section 6. Cost: one pass, on the host.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8", newline="") as file:
            lines = [(i, row) for i, row in enumerate(csv.reader(file, strict=True), 1) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"path: found {path} ({error}), expected a summary file in UTF-8") from error
    if len(lines) < 2:
        raise ValueError(f"path: found {len(lines)} lines in {path}, expected a line of names and one per MDP")
    names = [name.strip() for name in lines[0][1]]
    if "" in names or len(set(names)) < len(names):
        raise ValueError(f"path: found columns {names} in {path}, expected names, each once")
    for number, row in lines[1:]:
        if len(row) != len(names):
            raise ValueError(f"line {number}: found {len(row)} cells in {path}, expected {len(names)}")
    out = {}
    for j, name in enumerate(names):
        cells = [(number, row[j].strip()) for number, row in lines[1:]]
        try:
            out[name] = np.array([_number(*cell) for cell in cells])
        except ValueError as error:
            if name in NUMBERS:
                raise ValueError(f"{name}: {error} of {path}, expected a number, inf or nothing") from None
            out[name] = np.array([text for _, text in cells])
    return out


def _number(line: int, text: str) -> float:
    if not text:
        return float("nan")
    try:
        return float("inf") if text == "\u221e" else float(text)
    except ValueError:
        raise ValueError(f"found {text!r} in line {line}") from None


def save_bridge_summary(path: str | os.PathLike, columns: Mapping[str, np.ndarray]) -> None:
    """Write a summary file, all of it or nothing; reading it back gives the same columns.

    Text that looks like numbers is read back as numbers.

    Args:
      path: where; an existing file is replaced in one step.
      columns: {name: array over MDPs}, text or numbers; whole numbers are written without a point, NaN as nothing.

    Raises: ValueError for no columns or MDPs, columns of different lengths, or names that are empty or padded.
    Source: as `load_bridge_summary`. Cost: one pass, on the host.
    """
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    sizes = {name: array.shape for name, array in arrays.items()}
    shape = next(iter(sizes.values()), ())
    if len(set(sizes.values())) != 1 or len(shape) != 1 or 0 in shape:
        raise ValueError(f"columns: found shapes {sizes}, expected one length, at least 1")
    if any(not name or name != name.strip() for name in arrays):
        raise ValueError(f"columns: found names {list(arrays)}, expected names without blanks around them")

    def shown(x) -> str:
        if isinstance(x, str):
            return x
        x = float(x)
        if np.isnan(x):
            return ""
        return str(int(x)) if np.isfinite(x) and x == int(x) and abs(x) < 2**53 else repr(x)

    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(arrays)
    writer.writerows([shown(x) for x in row] for row in zip(*(a.tolist() for a in arrays.values()), strict=True))
    _write(Path(path), buffer.getvalue().encode())


def _write(path: Path, content: bytes) -> None:
    """The whole file or nothing."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
