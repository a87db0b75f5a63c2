"""BRIDGE files: round trips, every kind of damage, and the official KeyCorridor table where it is at hand."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

import envs
from envs.bridge import load_bridge, load_bridge_summary, save_bridge, save_bridge_summary
from rlcore.mdp import tabular

# The data set is not part of the repository; a copy beside it is used when there is one.
OFFICIAL = Path(
    os.environ.get("RLCORE_BRIDGE", Path(__file__).resolve().parents[2].parent / "shared" / "data" / "bridge")
)


def coarsest_classes(mdp) -> np.ndarray:
    """int[S]: states are in one class where no sequence of actions tells them apart; deterministic MDPs."""
    ends, successor = np.asarray(mdp.terminal)[..., 0], np.asarray(mdp.next_state)[..., 0]
    own = np.concatenate([np.asarray(mdp.reward)[..., 0], ends], axis=1)
    classes = np.zeros(len(own), int)
    while True:
        rows = np.concatenate([classes[:, None], own, np.where(ends, -1, classes[successor])], axis=1)
        refined = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
        if refined.max() == classes.max():
            return classes
        classes = refined


def beside(first, second):
    """Both deterministic MDPs as one; the second's rows follow the first's."""
    shift = len(first.initial)
    join = [
        np.concatenate([np.asarray(getattr(m, f)) for m in (first, second)]) for f in ("prob", "reward", "terminal")
    ]
    next_state = np.concatenate([np.asarray(first.next_state), np.asarray(second.next_state) + shift])
    return tabular(next_state, join[0], join[1], terminal=join[2])


@pytest.fixture
def saved(tmp_path):
    mdp = envs.make("key_corridor")
    save_bridge(tmp_path / "key.npz", mdp)
    return mdp, tmp_path / "key.npz"


def test_key_corridor_is_the_official_table_up_to_duplicates(saved, random_value, record_property, capsys):
    ours, own_file = saved
    path = OFFICIAL / "MiniGrid-KeyCorridorS3R1-v0.npz"
    present = path.exists()
    outcome = "run" if present else "not run: no official file beside the repository"
    record_property("comparison with BRIDGE", outcome)
    with capsys.disabled():
        if not present:
            print(f"\ncomparison with BRIDGE's KeyCorridor: {outcome}")
    # Without the official file the same comparison is made with our own.
    theirs = load_bridge(path if present else own_file, horizon=100)
    assert theirs.prob.shape == ((168 if present else 156), 6, 1)
    classes = coarsest_classes(beside(ours, theirs))
    left, right = classes[:156], classes[156:]
    assert left[0] == right[0]
    assert len(set(left)) == 156 and set(left) == set(right)
    assert random_value(theirs) == pytest.approx(random_value(ours), rel=0, abs=1e-14)


def test_another_layout_is_told_apart():
    wrong = envs.make("key_corridor")
    door = np.asarray(wrong.next_state).copy()
    door[0, 0] = door[0, 1]  # turning left does what turning right does
    changed = tabular(door, wrong.prob, wrong.reward, terminal=wrong.terminal)
    classes = coarsest_classes(beside(wrong, changed))
    assert classes[0] != classes[156]


@pytest.mark.parametrize(
    ("id", "parameters"),
    [
        ("key_corridor", {}),
        ("deep_sea", dict(size=4)),
        ("minigrid_empty", dict(size=5, shaped=True)),
        ("cliff", dict(variant="r")),
    ],
)
def test_round_trip(id, parameters, tmp_path):
    mdp = envs.make(id, **parameters)
    save_bridge(tmp_path / "table.npz", mdp)
    back = load_bridge(tmp_path / "table.npz", mdp.horizon)
    for field in ("next_state", "prob", "terminal", "available", "discount", "initial"):
        np.testing.assert_array_equal(getattr(back, field), getattr(mdp, field))
    np.testing.assert_array_equal(back.reward, np.asarray(mdp.reward).astype(np.float32))
    assert back.horizon == mdp.horizon
    assert [path.name for path in tmp_path.iterdir()] == ["table.npz"]


def test_padding_is_dropped_on_writing(tmp_path):
    mdp = tabular([[[1, 0]], [[0, 1]]], [[[0.0, 1.0]], [[0.0, 1.0]]], [[[9.0, 2.0]], [[9.0, 3.0]]])
    save_bridge(tmp_path / "padded.npz", mdp)
    back = load_bridge(tmp_path / "padded.npz", None)
    np.testing.assert_array_equal(back.next_state[..., 0], [[0], [1]])
    np.testing.assert_array_equal(back.reward[..., 0], [[2.0], [3.0]])


def test_other_arrays_are_not_read(tmp_path):
    pickled = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "more.npz", transitions=[[-1]], rewards=np.float32([[1]]), states=pickled)
    assert load_bridge(tmp_path / "more.npz", 1).terminal.all()


BAD_ARRAYS = [
    (dict(rewards=np.float32([[0]])), "an archive without transitions"),
    (dict(transitions=[[0]]), "an archive without rewards"),
    (dict(transitions=[[0]], rewards=np.array([[{}]], dtype=object)), "Object arrays"),
    (dict(transitions=[0], rewards=np.float32([0])), r"transitions: found int64\[1\]"),
    (dict(transitions=[[0.0]], rewards=np.float32([[0]])), r"transitions: found float64\[1, 1\]"),
    (dict(transitions=np.zeros((0, 2), int), rewards=np.zeros((0, 2))), r"transitions: found int64\[0, 2\]"),
    (dict(transitions=[[0]], rewards=np.float32([[0, 0]])), r"rewards: found float32\[1, 2\].*expected float\[1, 1\]"),
    (dict(transitions=[[0]], rewards=[[0]]), r"rewards: found int64\[1, 1\]"),
    (dict(transitions=[[0, 1]], rewards=np.float32([[0, 0]])), "transitions: found 1 at state 0, action 1"),
    (dict(transitions=[[0, -2]], rewards=np.float32([[0, 0]])), "transitions: found -2 at state 0, action 1"),
    (dict(transitions=[[0, 0]], rewards=np.float32([[0, np.nan]])), "rewards: found nan at state 0, action 1"),
]


@pytest.mark.parametrize(("arrays", "message"), BAD_ARRAYS, ids=[message for _, message in BAD_ARRAYS])
def test_files_that_hold_something_else_are_refused(arrays, message, tmp_path):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_bridge(tmp_path / "bad.npz", 10)


def test_damaged_files_are_refused(saved, tmp_path):
    content = saved[1].read_bytes()
    path = tmp_path / "damaged.npz"
    with pytest.raises(FileNotFoundError, match=r"damaged\.npz"):
        load_bridge(path, 10)
    array = io.BytesIO()
    np.save(array, np.zeros((2, 2), int))
    text = io.BytesIO()
    with zipfile.ZipFile(text, "w") as archive:
        archive.writestr("transitions.npy", b"not an array")
        archive.writestr("rewards.npy", b"not an array")
    cuts = [content[:n] for n in (0, 1, 30, len(content) // 2, len(content) - 1)]
    # a byte of the compressed data: the archive's checksum tells
    flipped = content[:150] + bytes([content[150] ^ 0xFF]) + content[151:]
    # bytes of the archive's directory: versions, flags, method; another method, encryption, a newer zip
    entry = content.index(b"PK\x01\x02")
    marks = [content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :] for i in (entry + 8, entry + 10, entry + 11)]
    newer = content[: entry + 6] + b"\xff" + content[entry + 7 :]
    forged = io.BytesIO()
    with zipfile.ZipFile(forged, "w") as archive:
        for name in ("transitions.npy", "rewards.npy"):
            header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000000,), }"
            header = header.ljust(117) + b"\n"
            archive.writestr(name, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    for damaged in [
        *cuts,
        *marks,
        newer,
        forged.getvalue(),
        flipped,
        b"hello" * 100,
        array.getvalue(),
        text.getvalue(),
    ]:
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"path: found .*damaged\.npz"):
            load_bridge(path, 10)


def test_what_the_format_cannot_hold_is_refused(tmp_path):
    good = dict(next_state=[[[0]], [[1]]], prob=[[[1.0]], [[1.0]]], reward=[[[0.0]], [[0.0]]])
    refused = [
        (envs.make("riverswim", length=3, horizon=5), "random outcome at state 0, action 1"),
        (tabular(**(good | dict(reward=[[[1e39]], [[0.0]]]))), "a reward of size 1e.39"),
        (tabular(**good, initial=[0.5, 0.5]), "initial probability 0.5 of state 0"),
        (
            tabular([[[0], [0]]], [[[1.0], [1.0]]], [[[0.0], [0.0]]], available=[[True, False]]),
            "actions that are not available",
        ),
    ]
    for mdp, message in refused:
        with pytest.raises(ValueError, match=message):
            save_bridge(tmp_path / "no.npz", mdp)
    assert not any(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    mdp, path = saved
    before = path.read_bytes()

    def full_disk(file, **arrays):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_bridge(path, mdp)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]


# ---- summary files ---------------------------------------------------------------------------------------------------

SUMMARY = {
    "mdp": np.array(["freeway, 10", "maze"]),
    "k_min": np.array([1.0, 3.0]),
    "effective_horizon": np.array([4.0959, np.inf]),
    "sample_complexity_ppo": np.array([np.inf, 1e-7]),
    "note": np.array(["", 'said "no"']),
    "reward_sqirl": np.array([np.nan, 0.1 + 0.2]),
}


def test_summaries_round_trip(tmp_path):
    path = tmp_path / "summary.csv"
    save_bridge_summary(path, SUMMARY)
    found = load_bridge_summary(path)
    assert list(found) == list(SUMMARY)
    for name, column in SUMMARY.items():
        np.testing.assert_array_equal(found[name], column)
    assert path.read_text().splitlines()[1].startswith('"freeway, 10",1,4.0959,inf,')
    save_bridge_summary(path, {"k_min": np.array([2])})
    assert load_bridge_summary(path)["k_min"].tolist() == [2.0] and list(tmp_path.iterdir()) == [path]


def test_infinity_may_be_a_sign_and_blank_lines_are_none(tmp_path):
    path = tmp_path / "summary.csv"
    path.write_text("mdp, k_min\n\na,\u221e\nb, 2 \n", encoding="utf-8")
    found = load_bridge_summary(path)
    assert found["mdp"].tolist() == ["a", "b"] and found["k_min"].tolist() == [np.inf, 2.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found 0 lines"),
        (b"mdp,k_min\n", "found 1 lines"),
        (b"mdp,mdp\na,b\n", r"found columns \['mdp', 'mdp'\]"),
        (b"mdp,\na,b\n", "expected names, each once"),
        (b"mdp,k_min\na,1\nb,1,2\n", "line 3: found 3 cells"),
        (b"mdp,k_min\na,1\nb,one\n", "k_min: found 'one' in line 3"),
        (b"mdp,k_min\na,\xff\n", "expected a summary file in UTF-8"),
        (b'mdp,k_min\na,"1\n', "expected a summary file in UTF-8"),
    ],
)
def test_malformed_summaries_are_refused(content, message, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_bridge_summary(path)
    with pytest.raises(FileNotFoundError):
        load_bridge_summary(tmp_path / "none.csv")


def test_columns_that_are_no_table_are_refused(tmp_path):
    path = tmp_path / "summary.csv"
    save_bridge_summary(path, SUMMARY)
    before = path.read_bytes()
    for columns in ({}, {"a": np.zeros(0)}, {"a": np.zeros(2), "b": np.zeros(3)}, {"a": np.zeros((1, 1))}):
        with pytest.raises(ValueError, match="columns: found shapes"):
            save_bridge_summary(path, columns)
    with pytest.raises(ValueError, match="without blanks"):
        save_bridge_summary(path, {" a": np.zeros(1)})
    assert path.read_bytes() == before
