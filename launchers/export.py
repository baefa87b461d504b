"""Cut one task out of a finished run: python launchers/export.py --workdir RUN --task cls --to timm.

--to timm         OUT/model.safetensors and config.json; a linear classifier goes along, other heads stay
                  behind. timm.create_model('local-dir:OUT', pretrained=True) loads it; config.json has the
                  classes, and the image size and resizing of the run's evaluation for timm's own transform
--to safetensors  OUT/model.safetensors: everything, all tasks; adapters merged into their weights
--to onnx         OUT/<task>.onnx, checked with onnxruntime; linear classification and dense segmentation
"""

import argparse
import sys
from pathlib import Path

from ufo_large.config import (
    add_plugin_option,
    did_you_mean,
    give_usual_rights,
    load_plugins,
    require_writable,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--task", help="which task to cut out (timm, onnx)")
    parser.add_argument("--to", required=True, choices=("timm", "safetensors", "onnx"))
    parser.add_argument(
        "--out", type=Path, help="default: WORKDIR/export, for timm WORKDIR/export/<task>-timm"
    )
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="input size of the ONNX graph")
    add_plugin_option(parser)
    arguments = parser.parse_args()
    try:
        load_plugins(arguments.plugin)
        export(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def export(arguments: argparse.Namespace) -> None:
    import torch
    from safetensors.torch import save_file

    from ufo_large.evaluation.loading import load_model
    from ufo_large.models.extract import write_timm_folder
    from ufo_large.models.lora import merge_lora
    from ufo_large.models.onnx_export import check_onnx, export_onnx
    from ufo_large.runs.folder import RunFolder

    folder = RunFolder(arguments.workdir)
    saved = folder.read()
    tasks = [t.name for t in saved.tasks]
    if arguments.to != "safetensors" and arguments.task not in tasks:
        raise ValueError(
            f"--task {arguments.task}: not a task of this run.{did_you_mean(str(arguments.task), tasks)}"
        )
    if arguments.to == "safetensors" and arguments.task is not None:
        raise ValueError("--task belongs to --to timm and --to onnx; --to safetensors writes all tasks")
    if (arguments.to == "onnx") != (arguments.size is not None):
        raise ValueError("--size H W belongs to --to onnx, which needs it")
    default = f"export/{arguments.task}-timm" if arguments.to == "timm" else "export"
    out = arguments.out or arguments.workdir / default
    require_writable(out, "--out")
    model = load_model(saved.config.model, saved.tasks, folder.weights, torch.device("cpu")).eval()
    merge_lora(model)
    out.mkdir(parents=True, exist_ok=True)
    if arguments.to == "timm":
        loader = saved.config.task(model.tasks[arguments.task]).loader
        print(write_timm_folder(model, arguments.task, out, loader.image_size, loader.keep_aspect))
    elif arguments.to == "safetensors":
        save_file(model.state_dict(), out / "model.safetensors")
        give_usual_rights(out / "model.safetensors")
        print(out / "model.safetensors")
    else:
        path = out / f"{arguments.task}.onnx"
        export_onnx(model, arguments.task, tuple(arguments.size), path)
        print(f"{path}; largest difference to torch {check_onnx(model, arguments.task, path):.1e}")


if __name__ == "__main__":
    main()
