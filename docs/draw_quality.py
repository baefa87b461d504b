"""Draw docs/quality.svg: what joint training and balancing bring on photographs, run by run.

    python docs/draw_quality.py

It reads the records of benchmarks/balancing_quality.py.
"""

import argparse
import json
import statistics
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from ufo_large.evaluation.compare import delta_m

HERE = Path(__file__).parent
RECORDS = HERE.parent / "benchmarks/results/balancing_quality_mini_1000_steps.jsonl"
INK, SINGLE, OURS, SUM = "#333333", "#cc6633", "#228833", "#888888"
ROWS = {
    "plain sum": ("plain sum", SUM),
    "constants cls1 dec3 seg1": ("tuned constants", SUM),
    "tbgn (default)": ("tbgn (default)", OURS),
    "upgrad": ("upgrad", "#aa3377"),
    "pcgrad": ("pcgrad", "#aa3377"),
    "nash_mtl": ("nash_mtl", "#aa3377"),
}
PANELS = {"top1": "Top-1, %", "map50": "mAP50, %", "miou": "mIoU, %", "delta_m": "mean relative gain, %"}


def read_runs() -> dict[str, list[dict[str, float]]]:
    """Return the test scores of every run by row, and those of all single-task runs under `single`."""
    rows: dict[str, list[dict[str, float]]] = {}
    for line in RECORDS.read_text().splitlines():
        run = json.loads(line)
        label = "single" if run["label"].startswith("single") else run["label"]
        rows.setdefault(label, []).append(run["scores"]["test"])
    return rows


def draw_panel(axes, metric: str, runs: dict[str, list[dict[str, float]]]) -> None:
    """One dot a run, a bar for the mean; the dashed line is the mean of the single-task runs."""
    single = 0.0
    if metric != "delta_m":
        single = statistics.mean(run[metric] for run in runs["single"] if metric in run)
    axes.axvline(100 * single, color=SINGLE, ls="--", lw=1.5)
    for height, (row, (_, color)) in enumerate(reversed(ROWS.items())):
        gain = lambda run: delta_m(run, runs["single"]) if metric == "delta_m" else run[metric]
        values = [100 * gain(run) for run in runs[row]]
        axes.plot(values, [height] * len(values), "o", color=color, ms=5, alpha=0.75, mew=0)
        axes.plot([statistics.mean(values)] * 2, [height - 0.28, height + 0.28], color=color, lw=2.5)
    axes.set_xlabel(PANELS[metric], color=INK)
    axes.grid(axis="x", color="#e6e6e6", lw=0.8)
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "quality.svg", help="the picture (%(default)s)")
    args = parser.parse_args()
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "ufo", "font.size": 9}
    runs = read_runs()
    figure, panels = plt.subplots(1, len(PANELS), figsize=(10.5, 2.8), sharey=True, facecolor="white")
    for axes, metric in zip(panels, PANELS, strict=True):
        draw_panel(axes, metric, runs)
    names = [name for name, _ in reversed(ROWS.values())]
    panels[0].set_yticks(range(len(ROWS)), names)
    figure.text(0.995, 0.98, "dashed: single-task runs", color=SINGLE, ha="right", va="top", fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    figure.savefig(args.out, metadata={"Date": None})
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
