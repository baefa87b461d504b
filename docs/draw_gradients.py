"""Draw docs/gradients.svg: who computes what in a step, and how the inner products come from shards.

python docs/draw_gradients.py
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, Rectangle

OUT = Path(__file__).parent / "gradients.svg"
INK, MUTED, EDGE = "#333333", "#777777", "#ffffff"
TASKS = {"cls": "#4477aa", "dec": "#cc6633", "seg": "#228833"}
RANKS = 4


def cell(axes, x: float, y: float, width: float, height: float, color: str, text: str, alpha=1.0) -> None:
    axes.add_patch(Rectangle((x, y), width, height, fc=color, ec=EDGE, lw=1.5, alpha=alpha))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9, color="white")


def draw_step(axes) -> None:
    """One step on four ranks: the same task everywhere, reduced before the next begins."""
    for row in range(RANKS):
        y = RANKS - 1 - row
        axes.text(-0.12, y + 0.42, f"rank {row}", ha="right", va="center", fontsize=9, color=INK)
        for column, (task, color) in enumerate(TASKS.items()):
            cell(axes, 1.5 * column, y, 1.15, 0.84, color, f"{task}\nimages")
    for column, (task, color) in enumerate(TASKS.items()):
        x = 1.5 * column + 1.17
        axes.add_patch(Rectangle((x, 0), 0.26, RANKS - 0.16, fc=color, ec="none", alpha=0.35))
        axes.text(x + 0.13, RANKS / 2, f"reduce {task} to shards", rotation=90, **CENTRED, color=INK)
    axes.add_patch(Rectangle((4.6, 0), 0.36, RANKS - 0.16, fc="#dddddd", ec="none"))
    axes.text(4.78, RANKS / 2, "one all-reduce of 3 x 3 numbers", rotation=90, **CENTRED, color=INK)
    axes.add_patch(Rectangle((5.06, 0), 0.36, RANKS - 0.16, fc="#444444", ec="none"))
    axes.text(5.24, RANKS / 2, "weighted sum, optimizer", rotation=90, **CENTRED, color="white")
    axes.annotate("", (5.4, -0.3), (0, -0.3), arrowprops={"arrowstyle": "-|>", "color": MUTED})
    axes.text(2.7, -0.55, "time", ha="center", fontsize=9, color=MUTED)
    axes.set(xlim=(-0.9, 5.6), ylim=(-0.75, RANKS + 0.35))
    axes.set_title("A step: all ranks on the same task at the same time", fontsize=11, color=INK)
    axes.axis("off")


def draw_gram(axes) -> None:
    """A row per task, a column per rank: inner products are sums over the columns."""
    for row, (task, color) in enumerate(TASKS.items()):
        y = 2 - row
        for rank in range(RANKS):
            cell(axes, rank, y, 0.96, 0.86, color, f"{task}, {rank}", alpha=0.75 + 0.08 * (rank % 2))
        axes.text(-0.12, y + 0.43, f"gradient of {task}", ha="right", va="center", fontsize=9, color=INK)
    for rank in range(RANKS):
        axes.text(rank + 0.48, 3.1, f"shard of\nrank {rank}", ha="center", fontsize=8.5, color=MUTED)
        arrow = FancyArrowPatch((rank + 0.48, -0.08), (1.98, -0.95), arrowstyle="-|>", mutation_scale=9)
        arrow.set(color=MUTED)
        axes.add_patch(arrow)
        axes.text(rank + 0.48 + 0.17 * (rank - 1.5), -0.36, "3 x 3", ha="center", fontsize=8.5, color=MUTED)
    axes.text(1.98, -1.2, "sum over ranks = Gram matrix of the whole gradients", **CENTRED, color=INK)
    axes.set(xlim=(-1.6, 4.1), ylim=(-1.45, 3.75))
    axes.set_title("No rank holds a whole gradient, all know the inner products", fontsize=11, color=INK)
    axes.axis("off")


CENTRED = {"ha": "center", "va": "center", "fontsize": 9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="the picture (%(default)s)")
    args = parser.parse_args()
    plt.rcParams.update({"svg.hashsalt": "gradients", "svg.fonttype": "none", "font.family": "sans-serif"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.9), facecolor="white")
    draw_step(left)
    draw_gram(right)
    figure.tight_layout()
    figure.savefig(args.out, metadata={"Date": None})
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
