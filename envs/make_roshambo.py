"""Compute `envs/data/roshambo.csv`: every pair of OpenSpiel's 43 rock-paper-scissors bots, 1000 throws each.

    python -m envs.make_roshambo        with the extra: pip install -e ".[external]"

Run by hand; nothing else needs the package. The bots are C programs of the International RoShamBo Programming
Competition (Billings, 1999; Greenberg by Nagorko, 2000), which OpenSpiel (Apache-2.0) compiles into its wheel. The copy
of their sources that OpenSpiel builds from states no licence of its own; only the win counts computed here are stored.
They draw from the C library's generators, seeded here once: the numbers repeat for one wheel and one C library.
"""

import csv
import ctypes
import importlib.metadata
import io
import itertools
from pathlib import Path

THROWS = 1000
SEED = 0
TARGET = Path(__file__).parent / "data" / "roshambo.csv"


def play(game, first: str, second: str) -> int:
    """Throws won minus throws lost by the first bot."""
    import pyspiel

    bots = [pyspiel.make_roshambo_bot(seat, name, THROWS) for seat, name in enumerate((first, second))]
    state = game.new_initial_state()
    while not state.is_terminal():
        state.apply_actions([bot.step(state) for bot in bots])
    return round(state.returns()[0])


def main() -> None:
    """Play all pairs and write the table: a header of names, then the rows' margins against the columns."""
    import pyspiel

    libc = ctypes.CDLL(None)
    libc.srandom(SEED)
    libc.srand(SEED)
    names = sorted(pyspiel.roshambo_bot_names())
    game = pyspiel.load_game(f"repeated_game(stage_game=matrix_rps(),num_repetitions={THROWS})")
    margins = {(name, name): 0 for name in names}
    for first, second in itertools.combinations(names, 2):
        margins[first, second] = play(game, first, second)
        margins[second, first] = -margins[first, second]
    text = io.StringIO()
    version = importlib.metadata.version("open_spiel")
    text.write(
        f"# throws won minus lost by the row against the column, of {THROWS}; open_spiel {version}, seed {SEED}\n"
    )
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(names)
    rows.writerows([margins[row, column] for column in names] for row in names)
    TARGET.parent.mkdir(exist_ok=True)
    temporary = TARGET.with_suffix(".part")
    temporary.write_text(text.getvalue())
    temporary.replace(TARGET)
    print(f"written: {TARGET}, {len(names)} bots")


if __name__ == "__main__":
    main()
