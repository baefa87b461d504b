"""Draw docs/quality.svg: what joint training and balancing bring on photographs, run by run.

    python docs/draw_quality.py

It reads records that launchers/compare_tasks.py keeps; that command draws the same picture of its own runs.
"""

import argparse
from pathlib import Path

HERE = Path(__file__).parent
RECORDS = HERE.parent / "benchmarks/results/balancing_quality_mini_1000_steps.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--records", type=Path, default=RECORDS, help="JSON lines of finished runs (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=HERE / "quality.svg", help="the picture (%(default)s)")
    args = parser.parse_args()
    from ufo_large.comparing.plot import draw
    from ufo_large.comparing.records import Records
    from ufo_large.comparing.report import rows_of
    from ufo_large.comparing.table import titles_of

    records = Records(args.records).rows
    args.out.write_text(draw(rows_of(records), titles_of(records)), encoding="utf-8")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
