"""Cut one task out of a finished run: python launchers/export.py --workdir RUN --task cls --to timm.

--to timm         OUT/model.safetensors, config.json and a card; a linear classifier goes along, other heads
                  stay behind. timm.create_model('local-dir:OUT', pretrained=True) loads it; config.json has
                  the classes, and the image size and resizing of the run's evaluation for timm's transform
--to safetensors  OUT/model.safetensors: everything, all tasks; adapters merged into their weights
--to onnx         OUT/<task>.onnx with its head, checked with onnxruntime; class names and how to prepare a
                  picture are in its metadata
"""

import argparse
import sys
from pathlib import Path

from ufo_large.config import add_plugin_option, load_plugins


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
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="input of the ONNX graph; default: the run's"
    )
    parser.add_argument("--license", help="of the timm folder, such as apache-2.0; default: unknown")
    parser.add_argument("--checkpoint", help="a checkpoint's name, or last, instead of the final weights")
    add_plugin_option(parser)
    arguments = parser.parse_args()
    try:
        load_plugins(arguments.plugin)
        print(export(arguments))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def export(arguments: argparse.Namespace) -> str:
    from ufo_large.serving.export import Export

    return Export(
        workdir=arguments.workdir,
        form=arguments.to,
        task=arguments.task,
        out=arguments.out,
        size=None if arguments.size is None else tuple(arguments.size),
        license=arguments.license,
        checkpoint=arguments.checkpoint,
    ).run()


if __name__ == "__main__":
    main()
