"""Gridworlds in which the return is to be steered: rewards to collect on the way, lotteries to take or avoid."""

from collections.abc import Callable, Sequence

from envs.checks import check_number
from envs.rules import Outcome, Rules, from_rules
from rlcore.mdp import MDP

__all__ = ["FAMILIES", "MAPS", "desired_returns", "lotteries", "walk"]

MAPS = {
    "desired_returns": ("..+..", "..#..", "-.S.P", ".....", "M...E"),
    "lotteries": ("##...###", "S1.1.1.E", "...#...#"),
    "homeostasis": ("F..", ".S.", "..W"),
    "hazards": ("S^^^E", "....."),
}
# (row, column) steps of the actions: up, right, down, left, stay.
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1), (0, 0))


def walk(
    rows: Sequence[str],
    horizon: int,
    rewards: Callable[[str], Sequence[tuple[float, float]]],
    *,
    slip: float = 0.0,
    num_actions: int = 4,
    stall: float = 0.0,
) -> Rules:
    """The rules of a gridworld whose reward is that of the cell one is in after the move, bumps included.

    Args:
      rows: equally long strings: `S` start, `E` end, `#` blocked, any other letter free.
      horizon: moves per episode.
      rewards: letter of the cell after the move -> [(probability, reward), ...].
      slip: in [0, 1]; each perpendicular direction happens with slip / 2. stall: in [0, 1], chance of staying instead.
      num_actions: 4, or 5 with staying.

    Returns: rules with states (row, column) and actions 0 up, 1 right, 2 down, 3 left, 4 stay.
    Cost: O(cells).
    """
    cells = {(i, j): letter for i, row in enumerate(rows) for j, letter in enumerate(row) if letter != "#"}
    (start,) = [cell for cell, letter in cells.items() if letter == "S"]

    def outcomes(cell, action):
        turns = [(1.0, action)]
        if slip and action < 4:
            turns = [(1 - slip, action), (slip / 2, (action + 1) % 4), (slip / 2, (action - 1) % 4)]
        moves = [(prob * (1 - stall), MOVES[direction]) for prob, direction in turns]
        if stall:
            moves.append((stall, (0, 0)))
        after = []
        for prob, (down, right) in moves:
            target = (cell[0] + down, cell[1] + right)
            target = target if target in cells else cell
            letter = cells[target]
            after += [
                Outcome(prob * chance, None if letter == "E" else target, reward) for chance, reward in rewards(letter)
            ]
        return after

    return Rules(start, outcomes, num_actions, horizon)


def desired_returns(slip: float = 0.0) -> MDP:
    """Collect exactly the return that is asked for: cells that pay 1, -1, 3 and -3, again at every visit and bump.

    States: the 23 free cells but the end, breadth first. Actions: up, right, down, left; into `#` or off the map stays.
    Rewards, of the cell after the move: `+` 1, `-` -1, `P` 3, `M` -3, else 0. Termination: `E`. Start: the middle.
    Horizon: 12.

    Args: slip: in [0, 1], the chance of a perpendicular direction.
    Returns: an MDP, [S=23, A=4, B=1 or 3].
    Raises: TypeError or ValueError for a slip out of range.
    Source: the specification of distributional dynamic programming, section 6, GW-A. Cost: O(cells) on the host.
    """
    check_number("slip", slip, 0.0, 1.0)
    paid = {"+": 1.0, "-": -1.0, "P": 3.0, "M": -3.0}
    return from_rules(walk(MAPS["desired_returns"], 12, lambda letter: [(1.0, paid.get(letter, 0.0))], slip=slip))


def lotteries() -> MDP:
    """Walk past three cells that cost 9 instead of 1 with probability 0.15; each can be avoided by two more moves.

    States: the free cells but the end, breadth first. Actions: up, right, down, left; into `#` or off the map stays.
    Rewards: -1 a move; a move that ends in a lottery: -1 with probability 0.85, else -9. Termination: the end, at the
    right. Start: at the left. Horizon: 20.

    Returns: an MDP, [S, A=4, B<=2].
    Source: the specification of distributional dynamic programming, section 6, GW-B. Cost: O(cells) on the host.
    """
    price = lambda letter: [(0.85, -1.0), (0.15, -9.0)] if letter == "1" else [(1.0, -1.0)]  # noqa: E731
    return from_rules(walk(MAPS["lotteries"], 20, price))


FAMILIES = {"desired_returns": desired_returns, "lotteries": lotteries}
