"""Draw docs/balancing.svg: why a sum of gradients follows the longest one, and where that leads.

    python docs/draw_balancing.py

The right half runs the planted conflict of benchmarks/conflict.py.
"""

import argparse
import importlib.util
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from ufo_large.balancing import METHODS

HERE = Path(__file__).parent
INK, LARGE, SMALL, SUM, OURS = "#333333", "#4477aa", "#cc6633", "#888888", "#228833"
RUNS = {
    "plain sum (fixed)": ("fixed", SUM, "-"),
    "normalised (tbgn)": ("tbgn", OURS, "-"),
    "pcgrad": ("pcgrad", "#aa3377", "--"),
    "mgda": ("mgda", "#66ccee", "--"),
}


def planted_conflict():
    """Return the benchmark script as a module."""
    spec = importlib.util.spec_from_file_location("conflict", HERE.parent / "benchmarks" / "conflict.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arrow(axes, end, color, label, at, width=2.0) -> None:
    axes.annotate(
        "", xy=end, xytext=(0, 0), arrowprops={"arrowstyle": "-|>", "color": color, "lw": width, "shrinkB": 0}
    )
    axes.text(*at, label, color=color, fontsize=10)


def draw_arrows(axes) -> None:
    """Two task gradients of unequal length, their sum, and the sum after normalising."""
    long_2, short_2 = np.array([3.6, 0.5]), np.array([-0.7, 0.65])
    length = (np.linalg.norm(long_2) + np.linalg.norm(short_2)) / 2
    even_2 = length * (long_2 / np.linalg.norm(long_2) + short_2 / np.linalg.norm(short_2))
    edge_2 = np.array([short_2[1], -short_2[0]]) / np.linalg.norm(short_2)
    axes.fill(*zip(-9 * edge_2, 9 * edge_2, (9, -9), strict=True), color="#fbeee6", zorder=0)
    axes.text(1.3, -0.6, "steps into this half make B worse", color=SMALL, fontsize=9)
    arrow(axes, long_2, LARGE, "task A: long gradient", (1.9, 0.02))
    arrow(axes, short_2, SMALL, "task B: short", (-1.75, 0.75))
    arrow(axes, long_2 + short_2, SUM, "plain sum", (2.75, 1.28), 3.0)
    arrow(axes, even_2, OURS, "each scaled to its share:\nboth improve", (-0.45, 2.0), 3.0)
    axes.set(xlim=(-1.9, 4.5), ylim=(-0.85, 2.7), aspect="equal")
    axes.set_title("One step", fontsize=11, color=INK)
    axes.axis("off")


def draw_paths(axes, conflict) -> None:
    """Where training with four methods goes between the wishes of three tasks."""
    corners_M2 = conflict.CORNERS_M2.numpy()
    axes.fill(*corners_M2.T, color="#f2f0e6", zorder=0)
    names = ("task with a large loss", "middle", "task with a small loss")
    for corner_2, name, up in zip(corners_M2, names, (0.1, -0.2, -0.2), strict=True):
        axes.plot(*corner_2, "o", color=INK, ms=6)
        axes.text(corner_2[0], corner_2[1] + up, name, ha="center", fontsize=9, color=INK)
    for label, (name, color, style) in RUNS.items():
        path: list = []
        conflict.train(METHODS[name].Config(), steps=600, seed=0, path=path)
        points_N2 = np.stack([conflict.START_2.numpy(), *[p.numpy() for p in path]])
        axes.plot(*points_N2.T, style, color=color, lw=1.8, label=label)
        axes.plot(*points_N2[-1], "o", color=color, ms=8, mec="white")
    axes.plot(*conflict.START_2.numpy(), "s", color=INK, ms=6)
    axes.text(conflict.START_2[0], conflict.START_2[1] - 0.22, "start", ha="center", fontsize=9, color=INK)
    axes.plot(0, 0, "+", color=INK, ms=12)
    axes.legend(frameon=False, fontsize=9, loc="upper right")
    axes.set(xlim=(-1.35, 2.35), ylim=(-1.25, 1.35), aspect="equal")
    axes.set_title("A whole run: each task pulls to its corner", fontsize=11, color=INK)
    axes.axis("off")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "balancing.svg", help="the picture (%(default)s)")
    args = parser.parse_args()
    plt.rcParams.update({"svg.hashsalt": "balancing", "svg.fonttype": "none", "font.family": "sans-serif"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), facecolor="white")
    draw_arrows(left)
    draw_paths(right, planted_conflict())
    figure.tight_layout()
    figure.savefig(args.out, metadata={"Date": None})
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
