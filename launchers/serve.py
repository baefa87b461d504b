"""Serve a trained model in a browser and by HTTP: python launchers/serve.py --workdir RUN.

The page takes a picture and shows what each task says of it; programs POST to /predict and get the JSON of
launchers/predict.py. --workdir is a run's folder, what UFO.save_pretrained wrote, or OWNER/NAME on Hugging
Face's hub. It answers to this machine alone unless --host says otherwise. Ctrl-C ends it.
"""

import argparse
import sys
from functools import partial

from ufo_large.config import add_plugin_option


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, metavar="RUN", help="a run, a saved model or a hub id")
    parser.add_argument("--checkpoint", metavar="last|DIR", help="a run's checkpoint, not its final weights")
    parser.add_argument("--device", help="default: the first GPU, else the processor")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0: a free one (8000)")
    parser.add_argument("--max-bytes", type=int, metavar="N", help="most bytes of a request (20 MiB)")
    parser.add_argument("--max-pixels", type=int, metavar="N", help="most pixels of a picture (40,000,000)")
    add_plugin_option(parser)
    arguments = parser.parse_args()
    try:
        serve(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)


def serve(arguments: argparse.Namespace) -> None:
    """Open the model and serve it."""
    from ufo_large import UFO
    from ufo_large.serving.limits import Limits
    from ufo_large.serving.serve import serve

    given = {name: getattr(arguments, name) for name in ("max_bytes", "max_pixels")}
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    open_model = partial(
        UFO.from_pretrained,
        arguments.workdir,
        checkpoint=arguments.checkpoint,
        device=arguments.device,
        plugins=arguments.plugin,
    )
    serve(open_model, arguments.host, arguments.port, limits)


if __name__ == "__main__":
    main()
