"""Draw docs/predictions.jpg: what one model says of pictures of the synthetic world, as its overlay shows it.

    python docs/draw_predictions.py --workdir runs/demo

RUN is what `make demo` leaves; its test pictures lie in RUN/world.
"""

import argparse
from pathlib import Path

OUT = Path(__file__).parent / "predictions.jpg"
HEIGHT, GAP, QUALITY = 300, 8, 82
WHICH = {"cls": 5, "dec": 2, "seg": 5}
"""Which test picture stands for each task; detection is the one that the demo learns least well."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/demo"), help="the run (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="the picture (%(default)s)")
    args = parser.parse_args()
    from PIL import Image

    from ufo_large import UFO

    model, panels = UFO.from_pretrained(args.workdir), []
    for task, place in WHICH.items():
        pictures = sorted((args.workdir / "world/track1_test_data" / task).rglob("*.jpg"))
        drawn = Image.fromarray(model.predict(pictures[place], tasks=[task]).overlay())
        panels.append(drawn.resize((round(drawn.width * HEIGHT / drawn.height), HEIGHT), Image.LANCZOS))
    canvas = Image.new("RGB", (sum(p.width for p in panels) + GAP * (len(panels) - 1), HEIGHT), "white")
    left = 0
    for panel in panels:
        canvas.paste(panel, (left, 0))
        left += panel.width + GAP
    canvas.save(args.out, quality=QUALITY, optimize=True)
    print(f"{args.out}: {args.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
