"""Local states against naive signed states, the order of payoff and transition, classes, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcore.lsd import (
    SwitchingBandit,
    advance,
    from_delays,
    from_tables,
    initial_state,
    payoff_class,
    simulate,
)
from rlcore.lsd.problem import transition_tables

DEPTHS = [(1, 1), (1, 3), (4, 1), (3, 2), (4, 3)]
RULES = ("reset", "decrement")


def signed(e, low):
    """The signed state of index e."""
    return e - low + 1 if e >= low else e - low


def index(state, deep, low):
    """The index of a signed state of any depth."""
    return low + min(state, deep) - 1 if state > 0 else low - min(-state, low)


def naive(rule, low):
    """The step of one arm in signed states, of any depth under "reset"; "decrement" walks back from -L at most."""

    def step(state, played):
        if played:
            return -1 if state > 0 else (state - 1 if rule == "reset" else max(state - 1, -low))
        if state > 0:
            return state + 1
        return 1 if rule == "reset" or state == -1 else state + 1

    return step


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("deep", "low"), DEPTHS)
def test_states_move_as_signed_states_do(rule, deep, low):
    rng = np.random.default_rng(deep + 7 * low)
    table = {s: rng.random() for s in [*range(1, deep + 1), *range(-low, 0)]}
    pays = lambda s: table[min(s, deep) if s > 0 else max(s, -low)]  # noqa: E731
    problem = from_tables(
        [[table[s] for s in range(1, deep + 1)]], [[table[-j] for j in range(1, low + 1)]], idle_rule=rule
    )
    step = naive(rule, low)
    move = jax.jit(advance)
    for start in ("rested", "one", "just"):
        state = {"rested": deep, "one": 1, "just": -1}[start]
        local = initial_state(problem, start)
        # long runs of either action, so that both ends saturate
        for played in np.repeat(rng.random(25) < 0.5, rng.integers(1, 7, 25)):
            assert int(local[0]) == index(state, deep, low)
            payoff, local = move(problem, local, jnp.array([played]))
            assert float(payoff[0]) == (pays(state) if played else 0)
            state = step(state, played)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("deep", "low"), DEPTHS)
def test_tables_and_arithmetic_agree_in_every_state(rule, deep, low):
    problem = from_tables(np.full((1, deep), 0.5), np.full((1, low), 0.5), idle_rule=rule)
    play, idle = transition_tables(problem)
    local = jnp.arange(deep + low, dtype=jnp.int32)
    for table, played in ((play, True), (idle, False)):
        _, after = jax.vmap(lambda e, x=played: advance(problem, e[None], jnp.array([x])))(local)
        np.testing.assert_array_equal(after[:, 0], table)
    # both maps keep order, and idling never leads lower than playing: what mirroring needs
    assert np.all(np.diff(play) >= 0) and np.all(np.diff(idle) >= 0) and np.all(np.asarray(play) <= np.asarray(idle))


def test_indices_count_up_from_the_longest_run():
    problem = from_tables([[0.5, 0.7, 0.8]], [[0.3, 0.1]])
    np.testing.assert_array_equal(problem.payoffs, [[0.1, 0.3, 0.5, 0.7, 0.8]])
    assert [signed(e, 2) for e in range(5)] == [-2, -1, 1, 2, 3]
    assert [index(signed(e, 2), 3, 2) for e in range(5)] == list(range(5))
    np.testing.assert_array_equal(problem.rested, [[0.5, 0.7, 0.8]])
    np.testing.assert_array_equal(problem.tired, [[0.3, 0.1]])
    assert (problem.num_arms, problem.num_local, problem.recovery, problem.satiation) == (1, 5, 3, 2)


def test_a_play_after_s_idle_rounds_is_a_play_at_delay_s_plus_one():
    delays = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    problem = from_delays(delays)
    assert (problem.satiation, problem.recovery) == (1, 4)
    for rest in range(7):
        local = initial_state(problem, "just")
        for _ in range(rest):
            _, local = advance(problem, local, jnp.array([False]))
        payoff, _ = advance(problem, local, jnp.array([True]))
        assert float(payoff[0]) == delays[0, min(rest + 1, 5) - 1]


def test_arms_move_apart_from_each_other():
    rng = np.random.default_rng(3)
    up, down = rng.random((4, 3)), rng.random((4, 2))
    problem = from_tables(up, down)
    local = jnp.array([0, 1, 3, 4], jnp.int32)
    played = jnp.array([True, False, True, False])
    payoff, after = advance(problem, local, played)
    for i in range(4):
        one = from_tables(up[i : i + 1], down[i : i + 1])
        alone, then = advance(one, local[i : i + 1], played[i : i + 1])
        assert (payoff[i], after[i]) == (alone[0], then[0])


def test_classes():
    assert payoff_class(from_tables([[0.5, 0.6]], [[0.5, 0.4]])) == "monotone"
    assert payoff_class(from_tables([[0.5, 0.6]], [[0.4, 0.5]])) == "recovering"
    assert payoff_class(from_tables([[0.5, 0.6]], [[0.6, 0.5]])) == "recovering"  # falls between -1 and +1
    assert payoff_class(from_tables([[0.6, 0.5]], [[0.5, 0.4]])) == "arbitrary"
    assert payoff_class(from_tables([[0.5, 0.5]], [[0.5, 0.5]])) == "monotone"


class AllArms:
    def init(self, problem, key):
        return None

    def act(self, problem, state, local, t, key):
        return jnp.ones(local.shape, bool), state


def test_problems_batch_and_keep_their_structure():
    tables = np.random.default_rng(0).random((5, 2, 4))
    batch = jax.vmap(lambda p: SwitchingBandit(p, 2, "decrement", False, "one"))(jnp.asarray(tables))
    assert batch.idle_rule == "decrement" and not batch.allow_idle and batch.num_arms == 2
    totals = jax.vmap(lambda p: simulate(p, AllArms(), 6, jax.random.key(0)).total)(batch)
    # from +1: plays at +1, -1, -2, -2, ...
    expected = (tables[:, :, 2] + tables[:, :, 1] + 4 * tables[:, :, 0]).sum(1)
    np.testing.assert_allclose(totals, expected, rtol=0, atol=1e-14)  # 12 terms below 1


FIT = "recovery, satiation: found shapes {}, {}, expected [k, M] and [k, L] with k, M, L >= 1"


@pytest.mark.parametrize(
    ("up", "down", "options", "message"),
    [
        ([0.5], [[0.5]], {}, FIT.format((1,), (1, 1))),
        ([[0.5]], [[0.5], [0.5]], {}, FIT.format((1, 1), (2, 1))),
        (np.zeros((2, 0)), np.zeros((2, 1)), {}, FIT.format((2, 0), (2, 1))),
        (np.zeros((2, 1)), np.zeros((2, 0)), {}, FIT.format((2, 1), (2, 0))),
        (np.zeros((0, 2)), np.zeros((0, 2)), {}, FIT.format((0, 2), (0, 2))),
        ([[0.5, 1.5]], [[0.5]], {}, "recovery: found 1.5 at (0, 1), expected payoffs in [0, 1]"),
        ([[0.5]], [[0.5, -0.1]], {}, "satiation: found -0.1 at (0, 1), expected payoffs in [0, 1]"),
        ([[0.5], [np.nan]], [[0.5], [0.5]], {}, "recovery: found nan at (1, 0), expected payoffs in [0, 1]"),
        ([[0.5]], [[np.inf]], {}, "satiation: found inf at (0, 0), expected payoffs in [0, 1]"),
        ([[0.5]], [[0.5]], {"idle_rule": "jump"}, "idle_rule: found 'jump', expected one of ('reset', 'decrement')"),
        ([[0.5]], [[0.5]], {"start": "two"}, "start: found 'two', expected one of ('rested', 'one', 'just')"),
        (
            [[0.5]], [[0.5]], {"payoff_class": "convex"},
            "payoff_class: found 'convex', expected one of ('monotone', 'recovering', 'arbitrary')",
        ),
        (
            [[0.5, 0.6], [0.5, 0.4]], [[0.1], [0.1]], {"payoff_class": "recovering"},
            "payoff_class: found arm 1 paying 0.5 in state +1 and 0.4 in +2, expected payoffs that never fall "
            "('recovering')",
        ),
        (
            [[0.5, 0.6]], [[0.7, 0.1]], {"payoff_class": "monotone"},
            "payoff_class: found arm 0 paying 0.7 in state -1 and 0.5 in +1, expected payoffs that never fall "
            "('monotone')",
        ),
        (
            [[0.5, 0.6]], [[0.1, 0.2]], {"payoff_class": "monotone"},
            "payoff_class: found arm 0 paying 0.2 in state -2 and 0.1 in -1, expected payoffs that never fall "
            "('monotone')",
        ),
    ],
)  # fmt: skip
def test_bad_tables_are_named(up, down, options, message):
    with pytest.raises(ValueError) as error:
        from_tables(up, down, **options)
    assert str(error.value) == message


def test_bad_delays_and_starts_are_named():
    with pytest.raises(ValueError) as error:
        from_delays([[0.5]])
    assert str(error.value) == "delays: found shape (1, 1), expected [k, D] with D >= 2"
    with pytest.raises(ValueError) as error:
        from_delays([0.5, 0.6])
    assert str(error.value) == "delays: found shape (2,), expected [k, D] with D >= 2"
    with pytest.raises(ValueError, match=r"payoff_class: found arm 0 paying 0.5 in state -1 and 0.2 in \+1"):
        from_delays([[0.5, 0.2, 0.6]], payoff_class="monotone")
    with pytest.raises(ValueError, match="start: found 'last', expected one of"):
        initial_state(from_delays([[0.5, 0.6]]), "last")
    with pytest.raises(ValueError, match="horizon: found 0, expected an integer of at least 1"):
        simulate(from_delays([[0.5, 0.6]]), AllArms(), 0, jax.random.key(0))
