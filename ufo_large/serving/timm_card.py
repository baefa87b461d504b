"""What goes with one task's network in timm's form: its README.md, and what timm's transform cannot say."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ufo_large.data.loader import LoaderConfig
from ufo_large.kinds import kind_of
from ufo_large.models.extract import has_classifier
from ufo_large.models.multitask import MultitaskModel
from ufo_large.runs.folder import SavedRun
from ufo_large.serving.model_card import joined, result_lines, task_lines, training_lines
from ufo_large.structures import TaskInfo
from ufo_large.tracking.results import MetricRow, Results, read_results

PADDING_NOTE = (
    "trained with keep_aspect: images lie at the top left and are padded at the bottom and right with the "
    "mean colour; timm's transform centres them: replace its CenterCropOrPad by such a padding"
)
USAGE = """```python
import timm
from PIL import Image

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
outputs = model(transform(Image.open("picture.jpg").convert("RGB"))[None])
```"""


def timm_notes(info: TaskInfo, loader: LoaderConfig) -> list[str]:
    """Return what the run's evaluation does with pictures and timm's transform does not."""
    notes = [PADDING_NOTE] if loader.keep_aspect else []
    if loader.tiles.for_task(info) is not None:
        notes.append("evaluated on overlapping tiles of an image, not on the whole image")
    if loader.views.count > 1:
        notes.append(f"evaluated on {loader.views.count} views of an image, mirrored or at other sizes")
    return notes


def timm_card(
    model: MultitaskModel,
    saved: SavedRun,
    folder: Path,
    license: str,
    info: TaskInfo,
    checkpoint: str = "",
) -> str:
    """Return the card; see `card_of`. Figures stand in it where the head that reached them goes along."""
    others = [other.name for other in saved.tasks if other.name != info.name]
    beside = f", cut out of a network that also learned {', '.join(others)}" if others else ""
    kept = (
        "`model.pretrained_cfg` has the classes"
        if has_classifier(model, info.name)
        else ("its head stays with the run: the outputs are pooled features")
    )
    about = [f"A vision transformer for {info.name} ({info.kind}){beside}, trained with UFO-Large; {kept}."]
    about += ["", *USAGE.splitlines()]
    if notes := timm_notes(info, saved.config.task(info).loader):
        about += ["", *(f"- {note}" for note in notes)]
    results = read_results(folder) if has_classifier(model, info.name) and not checkpoint else None
    if results is not None:
        results = replace(results, headline=_own(results, info, saved.tasks))
    training = training_lines(model, saved, folder, checkpoint)
    parts = [about, task_lines(saved, (info,)), result_lines(results), training]
    return joined("timm", [info.kind], license, info.name, parts)


def _own(results: Results, info: TaskInfo, tasks: Sequence[TaskInfo]) -> tuple[MetricRow, ...]:
    """Return the task's own figure; where others are of its kind, the one without a name is their mean."""
    name = kind_of(info).headline.name
    is_alone = sum(other.kind == info.kind for other in tasks) == 1
    wanted = name if is_alone else f"{info.name}/{name}"
    return tuple(row for row in results.headline if row.key == wanted)
