"""A trained model's weights in one of other tasks and classes: tasks and rows of class layers by name."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from ufo_large.models.warm_start import class_axes, fitting_tensors, origins
from ufo_large.models.weights import fill, initial_state
from ufo_large.routing import ROUTERS
from ufo_large.structures import TaskInfo
from ufo_large.tasks import HEADS
from ufo_large.testing.models import TINY_INFOS, TINY_TASKS, tiny_batch, tiny_model, tiny_model_with

HEADS_WITH_CLASSES = [
    (kind, head) for kind, heads in HEADS.items() if TINY_INFOS[kind].num_classes for head in heads
]


def named(name: str, kind: str, *classes: str) -> TaskInfo:
    return TaskInfo(name=name, kind=kind, class_names=classes, class_ids=tuple(range(len(classes))))


def weights_of(config, tasks, seed: int = 1, noise: float = 0.05):
    """A model and its weights as a run saves them, no two parameters alike."""
    model = config.build(tasks)
    fill(model, initial_state(model, seed))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
    return model.eval(), {name: value.detach().clone() for name, value in model.state_dict().items()}


def started_warm(config, tasks, tensors, trained, tmp_path):
    save_file(tensors, tmp_path / "model.safetensors")
    model = config.build(tasks)
    fill(model, initial_state(model, 0, tmp_path, trained=trained))
    return model.eval()


@pytest.mark.parametrize(("kind", "head"), HEADS_WITH_CLASSES)
def test_classes_in_another_order_keep_what_they_learned(kind, head, tmp_path):
    """The same network with its classes renumbered: equal outputs, class for class."""
    config = tiny_model_with(kind, head)
    before = TINY_INFOS[kind]
    order = list(range(before.num_classes))[::-1]
    after = replace(before, class_names=tuple(before.class_names[i] for i in order))
    old, tensors = weights_of(config, (before,))
    new = started_warm(config, (after,), tensors, (before,), tmp_path)
    axes = class_axes(new, after)
    assert axes
    parameters = dict(new.named_parameters())
    for name, parameter in old.named_parameters():
        inner = name.removeprefix(f"heads.{before.name}.")
        if inner in axes:
            rest = list(range(len(order), parameter.shape[axes[inner]]))
            wanted = parameter.index_select(axes[inner], torch.tensor(order + rest))
        else:
            wanted = parameter
        assert torch.equal(parameters[name], wanted), name


def test_a_linear_classifier_gives_known_classes_their_logits(tmp_path):
    config = tiny_model("task")
    old_info = named("cls", "classification", "ape", "bee", "cat", "dog", "elk")
    new_info = named("pets", "classification", "fox", "dog", "cat")
    old, tensors = weights_of(config, (old_info,))
    new = started_warm(config, (new_info,), tensors, (old_info,), tmp_path)
    batch = tiny_batch(new_info)
    with torch.no_grad():
        before = old.outputs(replace(batch, task="cls"))["logits_BK"]
        after = new.outputs(batch)["logits_BK"]
    torch.testing.assert_close(after[:, 1:], before[:, [3, 2]])


@pytest.mark.parametrize("router", ["task", "learned", "shared", "residual"])
def test_tasks_come_go_and_change(router, tmp_path):
    """A task of another name takes the expert of its kind; a new kind grows one; what is gone is left."""
    config = tiny_model(router)
    far = HEADS["depth"]["dense_depth"].Config(strides=(4, 8))
    config = replace(config, heads={**config.heads, "depth": far})
    old, tensors = weights_of(config, TINY_TASKS)
    tasks = (replace(TINY_INFOS["detection"], name="signs"), replace(TINY_INFOS["depth"], name="far"))
    new = started_warm(config, tasks, tensors, TINY_TASKS, tmp_path)
    with torch.no_grad():
        batch = tiny_batch(tasks[0])
        ours, theirs = new.outputs(batch), old.outputs(replace(batch, task="dec"))
        assert torch.equal(ours["cls_logits"], theirs["cls_logits"])
        assert all(v.isfinite().all() for v in new(tiny_batch(tasks[1])).values())


@pytest.mark.parametrize("router", ["task", "learned", "residual"])
def test_a_kind_that_the_run_did_not_have_starts_from_the_mean_of_its_experts(router, tmp_path):
    """No task of the run goes on: its experts are in the file all the same."""
    config = tiny_model(router)
    far = HEADS["depth"]["dense_depth"].Config(strides=(4, 8))
    config = replace(config, heads={**config.heads, "depth": far})
    _, tensors = weights_of(config, TINY_TASKS)
    new = started_warm(config, (replace(TINY_INFOS["depth"], name="far"),), tensors, TINY_TASKS, tmp_path)
    experts = {n: p for n, p in new.named_parameters() if ".experts.far." in n and p.ndim == 2}
    assert experts
    for name, parameter in experts.items():
        shared = name.replace(".experts.far.", ".shared.")
        others = [tensors[name.replace(".far.", f".{task.name}.")] for task in TINY_TASKS]
        if router == "task":
            torch.testing.assert_close(parameter, torch.stack(others).mean(0))
        elif router == "learned":
            assert torch.equal(parameter, tensors[shared])
        else:
            assert parameter.isfinite().all()


def test_renamed_tasks_keep_what_they_own_and_what_they_share(tmp_path):
    config = [tiny_model(ROUTERS["task"].Config(tasks=(name,))) for name in ("seg", "street")]
    old, tensors = weights_of(config[0], TINY_TASKS)
    tasks = (
        replace(TINY_INFOS["segmentation"], name="street"),
        replace(TINY_INFOS["detection"], name="signs"),
    )
    new = started_warm(config[1], tasks, tensors, TINY_TASKS, tmp_path)
    with torch.no_grad():
        for task, before in zip(tasks, ("seg", "dec"), strict=True):
            batch = tiny_batch(task)
            ours, theirs = new.outputs(batch), old.outputs(replace(batch, task=before))
            name = next(iter(ours))
            assert torch.equal(ours[name], theirs[name])


@pytest.mark.parametrize(
    ("tasks", "own"),
    [(TINY_TASKS, None), (TINY_TASKS[2:], ("seg",)), (TINY_TASKS[:2], ()), (TINY_TASKS[:1], None)],
)
def test_what_tasks_shared_goes_to_each_and_goes_on_alone(tasks, own, tmp_path):
    """A run in which `seg` alone had experts: outputs are the run's, however its tasks go on."""
    old, tensors = weights_of(tiny_model(ROUTERS["task"].Config(tasks=("seg",))), TINY_TASKS)
    config = tiny_model(ROUTERS["task"].Config(tasks=own))
    new = started_warm(config, tasks, tensors, TINY_TASKS, tmp_path)
    with torch.no_grad():
        for task in tasks:
            found, wanted = (model.outputs(tiny_batch(task)) for model in (new, old))
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_weights_of_classes_and_255_of_them_hinder_no_start(tmp_path):
    """One class more, by which class layers are found, has no weight and no label."""
    for count, options in ((4, {"class_weights": (1.0, 2.0, 1.0, 0.5)}), (255, {})):
        info = named("seg", "segmentation", *(f"c{i}" for i in range(count)))
        config = tiny_model("shared")
        head = HEADS["segmentation"]["dense"].Config(strides=(4, 8), **options)
        config = replace(config, heads={**config.heads, "segmentation": head})
        old, tensors = weights_of(config, (info,))
        new = started_warm(config, (info,), tensors, (info,), tmp_path)
        assert class_axes(new, info)
        assert all(torch.equal(p, dict(old.named_parameters())[n]) for n, p in new.named_parameters())


def test_what_is_taken_is_told():
    trained = (named("cls", "classification", "ape", "bee"), named("cars", "classification", "audi"))
    tasks = (
        named("cls", "classification", "bee", "cat"),
        named("models", "classification", "audi", "bmw"),
        named("dec", "detection", "sign"),
    )
    told = [str(o) for o in origins(tasks, trained)]
    assert told[0] == "cls: from the trained task cls; 1 of 2 classes known, new: cat"
    assert told[1] == "models: from the trained task cars; 1 of 2 classes known, new: bmw"
    assert told[2].startswith("dec: new; experts start as the mean of the others")


def test_classes_without_names_are_said_to_go_over_by_number():
    (told,) = origins([named("cls", "classification", "0", "1")], [named("cls", "classification", "0", "2")])
    assert "1 of 2 classes known by number, for they have no names" in str(told)


def test_a_trunk_of_another_width_is_named(tmp_path):
    _, tensors = weights_of(tiny_model("task"), TINY_TASKS)
    wider = tiny_model("task", embed_dim=96).build(TINY_TASKS)
    told = r"RUN: .*\[1, 17, 48\], but \[1, 17, 96\].*leave out what changes"
    with pytest.raises(ValueError, match=told):
        fitting_tensors(
            {n: v for n, v in tensors.items() if "pos_embed" in n}, TINY_TASKS, wider, dict, "RUN"
        )


def test_a_head_of_another_make_starts_anew(tmp_path):
    info = TINY_INFOS["classification"]
    _, tensors = weights_of(tiny_model("task"), (info,))
    new = started_warm(tiny_model_with("classification", "arcface"), (info,), tensors, (info,), tmp_path)
    drawn = tiny_model_with("classification", "arcface").build((info,))
    fill(drawn, initial_state(drawn, 0))
    name = "heads.cls.directions.weight"
    assert torch.equal(dict(new.named_parameters())[name], dict(drawn.named_parameters())[name])
