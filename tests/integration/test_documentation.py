"""What README and docs show is so: Python blocks run, commands run or their parsers read them, fields exist.

Everything happens in one process, in a folder where the names of the pages lie: RUN, DIR, SHARDS, street.jpg.
"""

import contextlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ufo_large.data.shard_index import DatasetIndex
from ufo_large.testing.distributed import run_ranks
from ufo_large.testing.documentation import (
    ROOT,
    SUPERVISE,
    Command,
    assignments,
    blocks,
    commands,
    commands_in_text,
    named_files,
    parse,
    start,
)

PYTHON = [block for block in blocks() if block.language == "python"]
SHELL = [block for block in blocks() if block.language in ("", "sh")] + commands_in_text()
QUICK = (
    "check_data",
    "make_shards",
    "verify_shards",
    "run_all",
    "compare_runs",
    "report",
    "plan",
    "predict",
    "export",
)
"""Scripts that end by themselves within a second or two on a tiny run."""
FOREIGN = ("curl", "hf", "pip", "ssh", "tensorboard", "--set")
"""Commands of others, and options alone: not looked at."""
RECIPES = ("contest_vit_g", "demo")
WRONG = "tasks.detection.loader.micro_batches=2"
A_WORD = re.compile(r"[A-Z]{2,}|=N$|<|…")
"""What stands for something of the reader's own."""


def write_run(root: Path, shards: DatasetIndex) -> None:
    """A run with logs, scores and a small model's weights, that nobody trained."""
    from safetensors.torch import save_file

    from ufo_large.config import apply_overrides
    from ufo_large.models.weights import fill, initial_state
    from ufo_large.recipes import load_recipe
    from ufo_large.runs.folder import RunFolder
    from ufo_large.testing.settings import IN_THE_PROCESS, SMALL_MODEL
    from ufo_large.testing.simulated_run import simulate_run

    folder, tasks = RunFolder(simulate_run(root, steps=20)), tuple(shards.tasks.values())
    config = apply_overrides(load_recipe("demo"), [*SMALL_MODEL, *IN_THE_PROCESS])
    folder.write(config, tasks, shards.fingerprint, "SHARDS", None)
    model = config.model.build(tasks)
    fill(model, initial_state(model, seed=0))
    folder.weights.mkdir()
    save_file(state := model.state_dict(), folder.weights / "model-00001.safetensors")
    index = {"weight_map": dict.fromkeys(state, "model-00001.safetensors")}
    (folder.weights / "model.safetensors.index.json").write_text(json.dumps(index))


def write_places(folder: Path) -> None:
    """What the pages call RUN, DIR, SHARDS, PICTURES, ...; the working directory lies in it."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # commands then start no processes of their own
    from ufo_large.data.shard_index import read_dataset
    from ufo_large.data.synthetic import write_world
    from ufo_large.data.world_sizes import WorldSizes

    write_world(folder / "DIR", 0, WorldSizes(cls=(6, 1, 2), dec=(4, 1, 2), seg=(4, 1, 2)))
    start("data_sharding/make_shards.py", ["--data", str(folder / "DIR"), "--out", str(folder / "SHARDS")])
    write_run(folder / "RUN", read_dataset(folder / "SHARDS"))
    (folder / "runs").mkdir()
    (folder / "runs/mine").symlink_to(folder / "RUN")  # of the page on a first model
    (folder / "RUN/world").symlink_to(folder / "DIR")
    pictures = sorted((folder / "DIR/track1_test_data/dec/test").iterdir())
    shutil.copy(pictures[0], folder / "street.jpg")
    for name in ("PICTURES", "PICTURE", "PATH"):
        (folder / name).mkdir()
        for picture in pictures:
            shutil.copy(picture, folder / name)
    labels = {picture.name: f"class {i}" for i, picture in enumerate(pictures)}
    (folder / "PICTURES/labels.json").write_text(json.dumps({"train": labels}))


def told(call: Callable[[], object]) -> str:
    """Return what went wrong in a call, empty where nothing did."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            call()
    except SystemExit as end:
        return f"ended with {end.code}: {output.getvalue()[-500:]}" if end.code else ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def run_python(folder: str) -> dict[str, str]:
    """Run every Python block with names of its own; return what went wrong by place."""
    from PIL import ImageShow

    ImageShow._viewers.clear()  # nobody looks
    write_places(Path(folder))
    os.chdir(folder)
    shutil.rmtree("DIR")  # here it is where a model is saved
    code = {b.place: compile(b.text, b.place, "exec") for b in PYTHON if not b.only_parsed}
    return {place: told(lambda c=c: exec(c, {"__name__": "__main__"})) for place, c in code.items()}


def run_commands(folder: str) -> dict[str, str]:
    """Run or parse every command, and set every field; return what went wrong by place."""
    write_places(Path(folder))
    os.chdir(folder)
    problems = {}
    for block in SHELL:
        for command in commands(block):
            problems[f"{command.place} is read"] = told(lambda c=command: read(c))
        for command in [] if block.only_parsed else commands(block, options_in_brackets=False):
            problems[f"{command.place} runs"] = told(lambda c=command: run(c))
    for place, found in assignments():
        problems[f"{place} {' '.join(found)}"] = told(lambda f=found: set_fields(RECIPES, f))
    return problems | {WRONG: told(lambda: set_fields(RECIPES, [WRONG]))}


def run(command: Command) -> None:
    """Run one command, if it is a quick one. ValueError for others, whose block must say why not."""
    script, options = command.script()
    if Path(script).stem not in QUICK:
        raise ValueError(f"{script} is not run in tests; put <!-- only parsed: why --> before the block")
    start(script, options)


def read(command: Command) -> None:
    """Check one command as far as that goes without running it."""
    from ufo_large.config import load_plugins

    first, *rest = command.words
    if first == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert set(rest) <= set(targets), f"{rest} is no target of the Makefile"
    elif first == "kubectl":
        assert (ROOT / rest[-1]).is_file(), rest
    elif first not in FOREIGN:
        script, options = command.script()
        assert all(
            (ROOT / word).is_file() for word in command.words if word.endswith((".py", ".sh", ".sbatch"))
        )
        if SUPERVISE in rest:
            parse(SUPERVISE, rest[rest.index(SUPERVISE) + 1 :])
        given = parse(script, ["1" if word in ("H", "N") else word for word in options])
        load_plugins(getattr(given, "plugin", ()))
        if getattr(given, "set", None):
            set_fields([getattr(given, "recipe", None) or RECIPES[0]], given.set)


def set_fields(recipes: Sequence[str], found: Sequence[str]) -> None:
    """Set fields of a recipe as the commands do; words that stand for the reader's own are left out."""
    from ufo_large.config import apply_overrides
    from ufo_large.recipes import load_recipe

    usual = [text for text in found if not A_WORD.search(text.replace("=FILE", "=file"))]
    known = [text for text in usual if not text.startswith("a.b=") and not text.endswith((".", "="))]
    refused = []
    for recipe in recipes:
        try:
            apply_overrides(load_recipe(recipe), known)
            return
        except ValueError as error:
            refused.append(error)
    raise refused[0]


@pytest.fixture(scope="module")
def problems(tmp_path_factory) -> dict[str, str]:
    """What went wrong at each place."""
    found = {}
    for play in (run_python, run_commands):
        found |= run_ranks(play, 1, str(tmp_path_factory.mktemp(play.__name__)))[0]
    return found


@pytest.mark.parametrize("block", [b for b in PYTHON if not b.only_parsed], ids=lambda b: b.place)
def test_a_python_block_runs_as_it_stands(block, problems):
    assert not problems[block.place]


@pytest.mark.parametrize("page", sorted({b.page for b in SHELL}))
def test_commands_are_those_of_the_scripts(page, problems):
    own = {place: problem for place, problem in problems.items() if place.startswith(f"{page}:")}
    assert {place: problem for place, problem in own.items() if problem} == {}
    assert any(place.endswith(" is read") for place in own)


def test_fields_that_the_text_sets_exist(problems):
    places = [f"{place} {' '.join(found)}" for place, found in assignments()]
    assert len(places) > 20
    assert {place: problems[place] for place in places if problems[place]} == {}


def test_every_other_block_says_what_it_is():
    """A block without a language is read as commands."""
    assert {block.language for block in blocks()} <= {"", "sh", "python", "json", "text"}


def test_files_that_the_text_names_exist():
    named = list(named_files())
    assert len(named) > 30
    places = (ROOT, ROOT / "ufo_large")
    assert [(place, path) for place, path in named if not any((top / path).is_file() for top in places)] == []


def test_what_is_wrong_is_found(problems):
    with pytest.raises(ValueError, match="unrecognized arguments: --flop"):
        parse("eval/run_all.py", ["--workdir", "RUN", "--data", "SHARDS", "--flop"])
    with pytest.raises(ValueError, match="no script of this project"):
        Command("here:1", ("python", "somewhere")).script()
    assert "micro_batches" in problems[WRONG]
