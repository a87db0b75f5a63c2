"""Two problems of the specification, section 6, written out cell by cell."""

import numpy as np

from rlcore.mdp import MDP, tabular

LOTTERIES = ("##...###", "S1.1.1.E", "...#...#")
PITS = {(6, 2), (8, 1), (4, 1), (5, 2), (7, 1), (8, 3), (9, 2), (9, 1), (4, 4), (7, 6), (9, 5), (3, 5), (6, 4), (7, 2)}
PITS |= {(5, 9), (8, 9)}


def lotteries() -> MDP:
    """GW-B: -1 a move, and on the three cells "1" -9 with probability .15; each can be avoided by two more moves."""
    cells = {(i, j): cell for i, row in enumerate(LOTTERIES) for j, cell in enumerate(row) if cell != "#"}
    index = {at: n for n, at in enumerate(cells)}
    shape = (len(cells), 4, 2)
    next_state, prob, reward, terminal = np.zeros(shape, int), np.zeros(shape), np.full(shape, -1.0), np.zeros(shape)
    for at, s in index.items():
        for a, (i, j) in enumerate([(-1, 0), (0, 1), (1, 0), (0, -1)]):
            to = (at[0] + i, at[1] + j)
            to = to if to in cells else at
            next_state[s, a] = index[to]
            prob[s, a] = (0.85, 0.15) if cells[to] == "1" else (1.0, 0.0)
            reward[s, a, 1] = -9.0
            terminal[s, a] = cells[to] == "E"
    initial = np.array([cell == "S" for cell in cells.values()], float)
    return tabular(next_state, prob, reward, terminal=terminal > 0, horizon=20, initial=initial)


def obstacle() -> MDP:
    """Obstacle-10: from (1, 1) to (10, 1), noisy moves, each step costs 1, or 20 on a pit; no horizon."""
    cells = [(i, j) for i in range(1, 11) for j in range(1, 11)]
    moves, shape = [(0, 1), (1, 0), (0, -1), (-1, 0)], (100, 4, 4)
    next_state, prob, reward, terminal = np.zeros(shape, int), np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
    for s, (i, j) in enumerate(cells):
        for b, (down, right) in enumerate(moves):
            to = (int(np.clip(i + down, 1, 10)), int(np.clip(j + right, 1, 10)))
            next_state[s, :, b] = cells.index(to)
            prob[s, :, b] = [0.9 if a == b else 0.1 / 3 for a in range(4)]
            terminal[s, :, b] = to == (10, 1) or (i, j) == (10, 1)
        reward[s] = 0.0 if (i, j) == (10, 1) else -20.0 if (i, j) in PITS else -1.0
    return tabular(next_state, prob, reward, terminal=terminal, initial=np.eye(100)[0])
