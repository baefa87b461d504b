"""Cut a task out of a finished run, or write the run's whole model into one file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ufo_large.config import did_you_mean, read_json, require_writable, write_text_whole
from ufo_large.kinds import kind_of
from ufo_large.models.extract import require_timm, write_timm_folder
from ufo_large.models.lora import merge_lora
from ufo_large.models.onnx_check import check_onnx
from ufo_large.models.onnx_export import export_onnx, require_graph
from ufo_large.models.tensor_files import write_tensors
from ufo_large.runs.folder import RunFolder, SavedRun
from ufo_large.serving.model_card import CARD
from ufo_large.serving.onnx_metadata import onnx_metadata
from ufo_large.serving.pretrained import WEIGHTS, Opened, open_model
from ufo_large.serving.timm_card import timm_card, timm_notes
from ufo_large.structures import TaskInfo
from ufo_large.tasks import head_class

CONFIG = "config.json"
OTHER_OUT = "give another --out, or remove what is there"


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """What to write of which run.

    `task`: for timm and ONNX. `out`: default WORKDIR/export, for timm WORKDIR/export/<task>-timm. `size`:
    (height, width) of an ONNX graph's input, default that of the run's evaluation. `license`: of a timm
    folder, an identifier of the hub. `checkpoint`: instead of the final weights, `last` for the newest.
    """

    workdir: Path
    form: Literal["timm", "safetensors", "onnx"]
    task: str | None = None
    out: Path | None = None
    size: tuple[int, int] | None = None
    license: str | None = None
    checkpoint: str | None = None

    def __post_init__(self):
        if self.form == "safetensors" and self.task is not None:
            raise ValueError(
                f"--task {self.task} belongs to --to timm and --to onnx; --to safetensors writes all tasks"
            )
        if self.size is not None and self.form != "onnx":
            raise ValueError(
                f"--size {self.size[0]} {self.size[1]} belongs to --to onnx, not --to {self.form}"
            )
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"--size {self.size[0]} {self.size[1]}: give at least one pixel each")
        if self.license is not None and self.form != "timm":
            raise ValueError(f"--license {self.license} belongs to --to timm, not --to {self.form}")

    def run(self) -> str:
        """Write the files; return the lines that say where they are. What is asked is checked at first.

        Raises ValueError with the remedy for a task that the run lacks, a head or routing that has no such
        form, a folder that holds something else, and a run without weights.
        """
        saved = RunFolder(self.workdir).read()
        info = self._task(saved)
        if self.form == "timm":
            require_timm(saved.config.model.trunk)
        if self.form == "onnx":
            require_graph(head_class(saved.config.model.head_of(info)), info)
            own = tuple(saved.config.task(info).loader.image_size)
            if self.size not in (None, own) and not kind_of(info).any_scale:
                raise ValueError(
                    f"--size {self.size[0]} {self.size[1]}: in {info.kind} the size shown matters; give {own}"
                )
        out = self._folder()
        opened = open_model(self.workdir, torch.device("cpu"), self.checkpoint)
        merge_lora(opened.model.eval())
        out.mkdir(parents=True, exist_ok=True)
        if info is None:
            write_tensors(out / WEIGHTS, opened.model.state_dict())
            return str(out / WEIGHTS)
        return (_write_timm if self.form == "timm" else _write_onnx)(self, opened, info, out)

    def _task(self, saved: SavedRun) -> TaskInfo | None:
        if self.form == "safetensors":
            return None
        tasks = {info.name: info for info in saved.tasks}
        if self.task is None:
            raise ValueError(f"--to {self.form} writes one task; give --task, one of {', '.join(tasks)}")
        if self.task not in tasks:
            raise ValueError(f"--task {self.task}: not a task of this run.{did_you_mean(self.task, tasks)}")
        return tasks[self.task]

    def _folder(self) -> Path:
        default = f"export/{self.task}-timm" if self.form == "timm" else "export"
        out = self.out or self.workdir / default
        require_writable(out, "--out")
        there = {file.name for file in out.iterdir()} if out.exists() else set()
        if self.form == "timm" and (others := sorted(there - {CONFIG, WEIGHTS, CARD})):
            raise ValueError(f"{out}: holds other files ({others[0]}); {OTHER_OUT}")
        is_timm = CONFIG in there and "architecture" in read_json(out / CONFIG, OTHER_OUT)
        if CONFIG in there and self.form != "onnx" and not (is_timm and self.form == "timm"):
            raise ValueError(f"{out}: {CONFIG} there belongs to another model; {OTHER_OUT}")
        return out


def _write_timm(request: Export, opened: Opened, info: TaskInfo, out: Path) -> str:
    model, saved, license = opened.model, opened.saved, request.license or "unknown"
    loader = saved.config.task(info).loader
    notes = timm_notes(info, loader)
    call = write_timm_folder(model, info.name, out, loader.image_size, loader.keep_aspect, license, notes)
    checkpoint = "" if request.checkpoint is None else opened.weights.name
    card = timm_card(model, saved, request.workdir, license, info, checkpoint)
    write_text_whole(out / CARD, card)
    return call


def _write_onnx(request: Export, opened: Opened, info: TaskInfo, out: Path) -> str:
    loader = opened.saved.config.task(info).loader
    size, path = request.size or loader.image_size, out / f"{info.name}.onnx"
    metadata = onnx_metadata(opened.model, opened.saved, info, size)
    export_onnx(opened.model, info.name, size, path, metadata, loader.keep_aspect)
    found = check_onnx(opened.model, info.name, path)
    return f"{path}; largest difference to torch {found.difference:.1e} ({found.count} {found.unit} compared)"
