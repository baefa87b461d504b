"""What one-command finetuning chooses for data, machine and time, and where it starts."""

import json
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import timm
import torch
from safetensors.torch import save_file

from ufo_large.config import apply_overrides, to_dict
from ufo_large.data.sharding import ShardingOptions, make_shards
from ufo_large.data.shards import ShardSet
from ufo_large.finetuning import machine
from ufo_large.finetuning.choosing import (
    EPOCHS,
    LEAST_STEPS,
    LEVELS,
    VALIDATIONS,
    Pace,
    Size,
    evaluated_splits,
    fitted,
    input_size,
    require_memory,
    scored_split,
    steps_per_epoch,
    with_steps,
)
from ufo_large.finetuning.command import notes, require_countable, require_same_data
from ufo_large.finetuning.heads import with_heads_that_fit
from ufo_large.finetuning.machine import GB, Machine, this_machine
from ufo_large.finetuning.options import Options
from ufo_large.finetuning.settings import SETTINGS_FILE, narrowed, smaller_size
from ufo_large.finetuning.start import start_from
from ufo_large.models.weights import fill, initial_state
from ufo_large.recipes import load_recipe
from ufo_large.runs.folder import RunFolder
from ufo_large.structures import TaskInfo
from ufo_large.tasks import HEADS
from ufo_large.testing.models import TINY_TASKS, task_info, tiny_model
from ufo_large.testing.tiny_shards import write_tiny_data

PROCESSOR = Machine(gpus=0, cores=2, memory=8 * GB, bf16=False)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> ShardSet:
    """Twelve images a task, three of them for validation."""
    folder = tmp_path_factory.mktemp("finetuning")
    data = write_tiny_data(folder / "train_data")
    make_shards([data], folder / "shards", ShardingOptions(val_share=0.25))
    return ShardSet.open(folder / "shards")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("aspect", [0.1, 0.5, 1.0, 1.7, 9.0])
def test_inputs_have_the_area_of_the_recipe_and_the_aspect_of_the_data(level, aspect):
    height, width = input_size((448, 672), aspect, 14, level)
    assert height % 14 == width % 14 == 0
    assert height * width == pytest.approx(448 * 672 * level**2, rel=0.15)
    assert height / width == pytest.approx(min(max(aspect, 0.5), 2.0), rel=0.15)
    assert input_size((8, 8), aspect, 16, level) == (64, 64)


def test_feeds_follow_the_data_and_never_ask_for_more_images_than_there_are(shards):
    whole = load_recipe("small").tasks["classification"].loader
    config = fitted(load_recipe("small"), shards, shards.tasks, 2, Size(level=0.5))
    feed = config.tasks["classification"].loader
    train = len(shards.split("cls", "train"))
    assert feed.micro_batch == train // 2 < whole.micro_batch
    assert math.prod(feed.image_size) == pytest.approx(math.prod(whole.image_size) / 4, rel=0.3)
    kept = fitted(load_recipe("small"), shards, shards.tasks, 1, Size(level=None))
    own = load_recipe("small").tasks["detection"].loader.image_size
    assert kept.tasks["detection"].loader.image_size == own


def pace(step_s: float = 1.0, image_s: float = 0.1) -> Pace:
    return Pace(step_s=step_s, image_s={task.name: image_s for task in TINY_TASKS})


def chosen(shards, seconds: float, **changes) -> object:
    config = fitted(load_recipe("mini"), shards, shards.tasks, 1, Size())
    return with_steps(config, shards, shards.tasks, 1, pace(**changes), seconds)


@pytest.mark.parametrize("seconds", [40, 120, 300])
def test_steps_and_validations_fit_the_time(shards, seconds):
    config = chosen(shards, seconds)
    validations = config.steps // config.evaluate_every
    images = sum(len(shards.split(t.name, "val")) for t in shards.tasks)
    assert config.steps >= LEAST_STEPS and 1 <= validations <= VALIDATIONS
    assert config.steps % config.evaluate_every == 0
    assert config.steps + validations * images * 0.1 <= seconds
    assert config.steps > 0.6 * seconds
    assert config.keep_best and config.patience


def test_more_time_than_needed_is_not_used(shards):
    config = chosen(shards, 1e7)
    per_epoch = steps_per_epoch(config, shards, shards.tasks, 1)
    assert config.steps == pytest.approx(max(EPOCHS * per_epoch, 300), abs=VALIDATIONS)


def test_too_little_time_is_told_with_what_would_do(shards):
    with pytest.raises(
        ValueError, match=r"--hours is too short: 20 steps of 1 s.*give --hours \S+ or"
    ) as told:
        chosen(shards, 10)
    hours = float(str(told.value).split("give --hours ")[1].split()[0])
    assert chosen(shards, 3600 * hours).steps >= LEAST_STEPS
    with pytest.raises(ValueError, match="one validation of 9"):
        chosen(shards, 60, image_s=10.0)


def test_a_machine_that_is_too_small_is_told_before_anything_runs(shards):
    config = load_recipe("small")
    with pytest.raises(ValueError, match=r"take 0\.\d GB, and there are 0\.1 GB\. Give --freeze"):
        require_memory(config, shards.tasks, replace(PROCESSOR, memory=GB // 10))
    require_memory(config, shards.tasks, PROCESSOR)


def test_what_runs_out_of_memory_gets_smaller_batches_then_inputs_then_an_error(shards):
    size, seen = Size(), []
    config = load_recipe("small")
    unused = replace(config.tasks["depth"], loader=replace(config.tasks["depth"].loader, micro_batch=64))
    config = replace(config, tasks={**config.tasks, "depth": unused})
    with pytest.raises(ValueError, match="one image of the smallest inputs is too much"):
        for _ in range(20):
            size = smaller_size(size, fitted(config, shards, shards.tasks, 1, size), shards.tasks, PROCESSOR)
            seen.append(size)
    assert [s.batch for s in seen[:3]] == [0.5, 0.25, 0.125]
    assert seen[-1].level == min(LEVELS) and seen[-1].batch > 1 / 64  # a feed without a task counts nothing


def test_the_data_is_described_with_what_is_weak(shards):
    told = "\n".join(notes(shards, shards.tasks))
    assert "dec: detection, 4 classes; images: train" in told
    assert "dec: one example or none to train sign2, sign3 on: add some, or drop the class" in told
    assert "cls: 9 images to train on are few" in told


def test_a_split_without_a_box_is_told_and_refused_where_it_is_what_would_be_scored(tmp_path):
    data = write_tiny_data(tmp_path / "data")
    shutil.copytree(data / "dec/train", data / "dec/val")
    empty = json.loads((data / "dec/train.json").read_text()) | {"annotations": []}
    (data / "dec/val.json").write_text(json.dumps(empty))
    make_shards([data], tmp_path / "shards", ShardingOptions())
    shards = ShardSet.open(tmp_path / "shards")
    told = "\n".join(notes(shards, shards.tasks))
    assert "dec: no image of its val split shows a class" in told and "cls: no image" not in told
    with pytest.raises(ValueError, match="dec: no image of its val split shows one of the 4 classes"):
        require_countable(shards, shards.tasks)


def shards_with(**labeled: bool | None) -> SimpleNamespace:
    """Shards whose tasks have a test split with ground truth (True), without (False) or none."""
    return SimpleNamespace(
        has_split=lambda task, split: split != "test" or labeled[task] is not None,
        split=lambda task, split: SimpleNamespace(labeled=split != "test" or bool(labeled[task])),
    )


@pytest.mark.parametrize(
    ("labeled", "splits"),
    [
        ({"a": True, "b": True}, ["test"]),
        ({"a": None, "b": None}, ["val"]),
        ({"a": True, "b": None}, ["test", "val"]),
        ({"a": False, "b": None}, ["test", "val"]),
    ],
)
def test_every_task_is_scored_where_it_has_ground_truth(labeled, splits):
    tasks = [TaskInfo(name=name, kind="depth") for name in labeled]
    shards = shards_with(**labeled)
    assert evaluated_splits(shards, tasks) == splits
    assert [scored_split(shards, t) for t in tasks] == ["test" if has else "val" for has in labeled.values()]


def test_from_scratch_every_kind_has_a_feed_and_a_head():
    start = start_from("none", TINY_TASKS)
    assert start.config.pretrained is None and start.config.name == "mini"
    assert start.config.tasks.keys() == start.config.model.heads.keys() == HEADS.keys()


def test_a_file_says_which_trunk_it_is_of(tmp_path):
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    save_file(vit.state_dict(), tmp_path / "tiny.safetensors")
    torch.save({"epoch": 3, "model": vit.state_dict()}, tmp_path / "checkpoint.pth")
    for name in ("checkpoint.pth", "tiny.safetensors"):
        start = start_from(str(tmp_path / name), TINY_TASKS)
        assert start.config.model.trunk.name == "vit_tiny_patch16_224"
    model = start.config.model.build(TINY_TASKS)
    fill(model, initial_state(model, 0, start.config.pretrained))
    assert torch.equal(model.trunk.vit.cls_token, vit.cls_token)


def test_a_file_that_fits_no_trunk_is_named_with_its_shape(tmp_path):
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, embed_dim=60, depth=2)
    save_file(vit.state_dict(), tmp_path / "odd.safetensors")
    wrong = r"odd\.safetensors: holds a ViT of width 60, depth 2.*is of width 384"
    with pytest.raises(ValueError, match=wrong):
        start_from(str(tmp_path / "odd.safetensors"), TINY_TASKS)
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors: holds no ViT that is known"):
        start_from(str(tmp_path / "other.safetensors"), TINY_TASKS)
    with pytest.raises(ValueError, match=r"--init nowhere: no such run or file"):
        start_from("nowhere", TINY_TASKS)


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """A finished run of three tasks, `dec` with a head and a feed of its own."""
    folder, base = RunFolder(tmp_path / "run"), load_recipe("demo")
    model = tiny_model("task")
    heads = {**model.heads, "dec": HEADS["detection"]["fcos"].Config(strides=(8, 16))}
    tasks = {**base.tasks, "dec": base.tasks["detection"]}
    config = replace(base, model=replace(model, heads=heads), tasks=tasks)
    folder.write(config, TINY_TASKS, "0" * 64, "shards", None)
    built = config.model.build(TINY_TASKS)
    fill(built, initial_state(built, 1))
    folder.weights.mkdir()
    save_file(built.state_dict(), folder.weights / "model-00001.safetensors")
    return folder


@pytest.mark.parametrize("place", ["root", "weights"])
def test_a_run_gives_its_model_and_feeds_to_other_tasks(run, place):
    tasks = (task_info("lamps", "detection", 2), TaskInfo(name="far", kind="depth"))
    start = start_from(str(getattr(run, place)), tasks)
    config = start.config
    assert config.model.trunk == tiny_model("task").trunk and not start.resize
    assert config.model.head_of(tasks[0]).strides == (8, 16)
    assert "dec" not in config.model.heads and "dec" not in config.tasks
    assert config.take_what_fits and config.pretrained == str(run.weights.absolute())
    told = "\n".join(start.told)
    assert "lamps: from the trained task dec; 2 of 2 classes known" in told
    assert "far: new" in told and "left behind: cls, seg" in told
    model = config.model.build(tasks)
    fill(model, initial_state(model, 0, config.pretrained, trained=run.read_tasks()))


def test_rates_of_single_heads_follow_their_tasks(run):
    rates = {"detection": 0.1, "cls": 2.0, "seg": 5.0}
    saved = run.read().config
    changed = replace(saved, optimizer=replace(saved.optimizer, head_rates=rates))
    run.write(changed, TINY_TASKS, "0" * 64, "shards", None)
    tasks = (task_info("lamps", "detection", 2), task_info("birds", "classification", 5))
    found = start_from(str(run.root), tasks).config.optimizer.head_rates
    assert found == pytest.approx({"detection": 0.3, "birds": 6.0})


@pytest.mark.parametrize("balancer", ["tbgn", "fairgrad", "autoscale", "fixed"])
def test_shares_and_experts_follow_their_tasks(run, balancer):
    """Whatever names tasks goes on under the new names; what is gone is left out."""
    key = "by_task" if balancer == "fixed" else "shares"
    sets = [f"balancer={balancer}", f"balancer.{key}.dec=2", f"balancer.{key}.cls=3"]
    changed = apply_overrides(run.read().config, [*sets, "model.trunk.router.tasks=dec,seg"])
    run.write(changed, TINY_TASKS, "0" * 64, "shards", None)
    tasks = (task_info("lamps", "detection", 2), TaskInfo(name="far", kind="depth"))
    config = start_from(str(run.root), tasks).config
    assert getattr(config.balancer, key) == {"lamps": 2} and config.model.trunk.router.tasks == ("lamps",)
    config.balancer.build(("lamps", "far"), seed=0)
    config.model.build(tasks)
    birds = start_from(str(run.root), (task_info("birds", "classification", 5),)).config
    assert getattr(birds.balancer, key) == {"birds": 3} and birds.model.trunk.router.tasks == ()
    assert start_from(str(run.root), TINY_TASKS).config.balancer == changed.balancer


def test_a_run_that_began_from_a_run_keeps_its_rates(run):
    first = start_from(str(run.root), TINY_TASKS).config
    assert first.optimizer.learning_rate == load_recipe("demo").optimizer.learning_rate / 3
    run.write(first, TINY_TASKS, "0" * 64, "shards", None)
    assert start_from(str(run.root), TINY_TASKS).config.optimizer == first.optimizer
    with pytest.raises(ValueError, match=r"--recipe mini: --init \S+ is a run.*leave one out"):
        start_from(str(run.root), TINY_TASKS, "mini")


def test_a_run_without_weights_is_told(run):
    run.weights.rename(run.root / "elsewhere")
    with pytest.raises(ValueError, match=r"has no weights/ yet; let it finish"):
        start_from(str(run.root), TINY_TASKS)


def test_frozen_and_adapted_trunks_need_something_that_was_trained(tmp_path, run):
    for option in ("freeze", "lora"):
        options = Options(data=["d"], workdir=tmp_path, **{option: True})
        with pytest.raises(ValueError, match="keep what was trained before: give --init"):
            narrowed(load_recipe("mini"), options)
        trunk = narrowed(start_from(str(run.root), TINY_TASKS).config, options).model.trunk
        assert trunk.frozen is (option == "freeze") and (trunk.lora is not None) is (option == "lora")
    with pytest.raises(ValueError, match="give one of them"):
        Options(data=["d"], workdir=tmp_path, lora=True, freeze=True)
    with pytest.raises(ValueError, match="--hours 0: give more than 0"):
        Options(data=["d"], workdir=tmp_path, hours=0)


REFUSED = {
    "trunk.frozen=true": ("frozen_blocks=0", "drop_path=0.0", "frozen=true"),
    "trunk.window=4": ("window=4",),
    "this is a Eva": ("name=eva02_tiny_patch14_224",),
    "blocks=4: the trunk has 3": ("frozen_blocks=1", "depth=3"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_trunk_that_takes_no_queries_gets_plain_heads(reason):
    config, changes = load_recipe("small"), [f"model.trunk.{change}" for change in REFUSED[reason]]
    assert with_heads_that_fit(config, [], TINY_TASKS) == (config, [])
    plain, (told,) = with_heads_that_fit(config, changes, TINY_TASKS)
    assert told.startswith("seg: another head than the recipe's (") and reason in told
    assert plain.model.trunk == apply_overrides(config, changes).model.trunk
    own = {t.name: plain.model.head_of(t) == config.model.head_of(t) for t in TINY_TASKS}
    assert own == {"cls": True, "dec": True, "seg": False}
    assert plain.optimizer.head_rates == {"detection": 1.0, "segmentation": 1.0, "seg": 15.0}
    with torch.device("meta"):
        plain.model.build(TINY_TASKS)


def test_a_head_that_is_asked_for_is_not_replaced():
    changes = ["model.trunk.window=4", "model.heads.seg=eomt"]
    config, _ = with_heads_that_fit(load_recipe("small"), changes, TINY_TASKS)
    with torch.device("meta"), pytest.raises(ValueError, match=r"trunk\.window=4: windows hold patches"):
        config.model.build(TINY_TASKS)


def test_the_machine_is_looked_at():
    found = this_machine(0)
    assert found.gpus == 0 and found.ranks == 1 and found.cores >= 1 and found.memory > 0
    with pytest.raises(ValueError, match="--gpus 99: this machine has"):
        this_machine(99)


def test_memory_that_caches_files_is_free(tmp_path, monkeypatch):
    """Of a control group's 8 GB, 7 are in use, and 3 of these hold files that can be read again."""
    monkeypatch.setattr(machine, "GROUP", tmp_path)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * GB))
    stat = f"anon {4 * GB}\ninactive_file {3 * GB}"
    for name, text in (("max", 8 * GB), ("current", 7 * GB), ("stat", stat)):
        (tmp_path / f"memory.{name}").write_text(f"{text}\n")
    assert this_machine(0).memory == 4 * GB


def test_another_run_in_the_folder_is_refused(run):
    options = Options(data=["d"], workdir=run.root)
    require_same_data(options, run.root / SETTINGS_FILE)
    (run.checkpoints / "step-00000001").mkdir(parents=True)
    (run.checkpoints / "step-00000001/complete.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"holds a run that finetune.py did not begin; give another --workdir"
    ):
        require_same_data(options, run.root / SETTINGS_FILE)


def test_a_runs_config_is_a_recipe(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"config": to_dict(load_recipe("small"))}))
    assert load_recipe(str(file)) == load_recipe("small")
    file.write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json: holds no 'config'"):
        load_recipe(str(file))
