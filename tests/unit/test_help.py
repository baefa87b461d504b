"""`--help` of every command answers at once, without the heavy libraries, and what it shows is true."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ufo_large.config import apply_overrides
from ufo_large.recipes import known_recipes, load_recipe

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("launchers", "eval", "data_sharding")
COMMANDS = [f"{folder}/{path.name}" for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.py"))]
HEAVY = ("torch", "deepspeed", "transformers", "timm", "cv2", "numpy", "scipy", "wandb", "rich")
SECONDS = 1.5
ASK = """
import json, runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted(sys.modules)))
"""


def asked(command: str) -> tuple[str, set[str], float]:
    """Return the help of a command, the modules it has imported, and the processor seconds it took."""
    before = os.times()
    done = subprocess.run([sys.executable, "-c", ASK, command], cwd=ROOT, capture_output=True, text=True)
    after = os.times()
    assert done.returncode == 0, done.stderr
    text, _, modules = done.stdout.rstrip().rpartition("\n")
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return text, set(json.loads(modules)), spent


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_without_the_heavy_libraries(command):
    text, modules, seconds = asked(command)
    assert Path(command).name in text
    assert not modules & set(HEAVY)
    assert seconds < SECONDS


def test_the_trainers_help_lists_recipes_and_fields_that_exist():
    text, _, _ = asked("launchers/train.py")
    assert all(name in text for name in known_recipes())
    shown = [found for found in re.findall(r"--set (\S+=\S+)", text) if not found.startswith("a.b=")]
    assert len(shown) >= 8
    for assignment in shown:
        apply_overrides(load_recipe("mini"), [assignment])


def test_listing_recipes_imports_none_of_them():
    listed = "import sys, ufo_large.recipes as r; assert 'mini' in r.known_recipes()"
    code = f"{listed}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_trainer_prints_every_field_as_set_takes_it(script):
    done = script("launchers/train.py", "--recipe", "mini", "--fields")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split()
    assert {"optimizer.learning_rate=0.0015", "model.trunk.router=task", "ema.decay=0.99"} <= set(lines)
    config = load_recipe("mini")
    assert apply_overrides(config, lines) == config
