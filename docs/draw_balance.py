"""Draw docs/balance.png: the report's charts of how the task gradients meet, from a run of the demo.

    python docs/draw_balance.py --workdir runs/demo

It needs chromium, as the tests of the report's page do.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

OUT = Path(__file__).parent / "balance.png"
SIZE = (1280, 730)
COLOURS = 128


def balance_section(page: str) -> str:
    """Return the report with nothing but its section on balance."""
    start = page.index('<section id="balance">')
    section = page[start : page.index("</section>", start)]
    return f"{page[: page.index('<header')]}<main>{section}</section></main></body></html>"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/demo"), help="the run (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="the picture (%(default)s)")
    args = parser.parse_args()
    from PIL import Image

    page = (args.workdir / "report.html").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        part, shot = Path(folder) / "balance.html", Path(folder) / "balance.png"
        part.write_text(balance_section(page), encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={SIZE[0]},{SIZE[1]}"]
        subprocess.run(["chromium", *options, f"--screenshot={shot}", part.as_uri()], check=True, timeout=120)
        Image.open(shot).convert("RGB").quantize(COLOURS).save(args.out, optimize=True)
    print(f"{args.out}: {args.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
