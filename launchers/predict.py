"""Predict with a trained model: python launchers/predict.py --workdir RUN PATH [PATH ...] [--out DIR].

A PATH is a picture, a folder (with all below it), a text file with one path per line, a video, or the address
of a stream. --workdir is a run's folder, what UFO.save_pretrained wrote, or OWNER/NAME on Hugging Face's hub.

DIR gets predictions.jsonl (a line per picture, with class names), overlays/, a PNG per mask or depth map,
coco_<task>.json, and for videos one line per frame and the frames drawn. The same command again goes on where
it stopped. Exit code 1: some pictures could not be read; DIR/left_out.jsonl says which and why.
"""

import argparse
import sys
from pathlib import Path

from ufo_large.config import add_plugin_option, add_view_options, chosen_view_options


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, metavar="RUN", help="a run, a saved model or a hub id")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="picture, folder, list, video or stream")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: predictions/<name of RUN>")
    parser.add_argument("--tasks", metavar="A,B", help="only these tasks; default: all")
    parser.add_argument("--size", metavar="H,W", help="show all tasks one size; shared blocks run once")
    parser.add_argument("--checkpoint", metavar="last|DIR", help="a run's checkpoint, not its final weights")
    parser.add_argument("--device", help="default: the first GPU, else the processor")
    add_view_options(parser)
    add_plugin_option(parser)
    arguments = parser.parse_args()
    if arguments.size and (given := chosen_view_options(parser, arguments)):
        parser.error(f"--size shows every picture once, whole; leave out {', '.join(given)}")
    try:
        sys.exit(predict(arguments))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def predict(arguments: argparse.Namespace) -> int:
    """Predict and say what was done; the exit code."""
    from ufo_large import UFO
    from ufo_large.data.views import Views
    from ufo_large.serving.one_size import parse_size
    from ufo_large.serving.predict_paths import predict_paths

    source, out = arguments.workdir, arguments.out
    out = out or Path("predictions") / Path(source).resolve().name
    model = UFO.from_pretrained(
        source, checkpoint=arguments.checkpoint, device=arguments.device, plugins=arguments.plugin
    )
    views = Views(flip=arguments.flip, scales=tuple(arguments.scales), fusion=arguments.fusion)
    model = model.seeing(views, arguments.set)
    tasks = arguments.tasks.split(",") if arguments.tasks else None
    size = parse_size(arguments.size) if arguments.size else None
    done = predict_paths(model, arguments.paths, out, tasks, size)
    frames = f" and {done.frames} frames of videos" if done.frames else ""
    there = f"; {done.there} were there already" if done.there else ""
    print(f"{out}: {done.pictures} pictures{frames} predicted{there}")
    if done.turned:
        print(f"{done.turned} pictures have an EXIF tag that turns them; predicted as stored, as in training")
    for result in done.left_out:
        print(f"left out: {result.file_name}: {result.error}", file=sys.stderr)
    return 1 if done.left_out else 0


if __name__ == "__main__":
    main()
