"""The README runs: its Python blocks in order in one process, and everything it points at exists."""

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()


def test_its_python_blocks_run_in_order_from_a_folder_of_strangers(tmp_path):
    for name in ("envs", "experiments"):  # somebody else's, found before ours
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('the {name} of somebody else was imported')\n")
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 2
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks))
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    outputs, written = [], []
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, str(script)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        assert run.returncode == 0, run.stderr
        assert "holds" in run.stdout and "bites" in run.stdout
        outputs.append(run.stdout)
        markers = list((tmp_path / "results" / "first_sweep" / "done").iterdir())
        written.append([p.stat().st_mtime_ns for p in markers])
    # The second run takes up the finished sweep: the same numbers, and nothing computed again.
    assert outputs[0] == outputs[1] and written[0] == written[1] != []


def test_its_links_and_commands_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (REPOSITORY / target).exists(), target
    makefile = (REPOSITORY / "Makefile").read_text()
    for command in re.findall(r"`?make ([a-z-]+)", README):
        assert re.search(rf"^{command}:", makefile, flags=re.MULTILINE), command


def test_the_sweep_is_twelve_lines_and_the_statement_four():
    sweep, check = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)[:2]
    lines = lambda block: [line for line in block.splitlines() if line.strip()]  # noqa: E731
    assert len(lines(sweep)) <= 12
    assert len([line for line in lines(check) if not line.startswith("from")]) <= 4
