"""Planted conflict: a problem where plain summing provably fails a task; what does each method do?

    python benchmarks/conflict.py [--steps 800] [--seeds 3] [--write] [--json]

Three tasks share a trunk of five numbers: two that they disagree about (z) and one that each needs for
itself (u_k); each also has a head of its own (h_k):

    L_k = s_k / 2 * (|z - v_k|^2 + (u_k - 1)^2 + (h_k - 1)^2),   s = 100, 10, 1

The v_k are the corners of an equilateral triangle. Every point of it is a Pareto optimum; its centre treats
the tasks alike. Training starts outside, near the corner of the small task. The sum of the losses is least
at z = sum(s_k v_k) / sum(s_k), next to the corner of the large task, whatever optimizer finds it: there the
small task's loss is higher than before training. That is what "fails" means below.

Gradients carry noise in proportion to s_k, as from small batches. Adam makes the steps (SGD where the row
says so), with a cosine schedule. Nothing is tuned per method except where the row says so.
"""

import argparse
import json
import math
import platform
import time
from pathlib import Path

import torch
from torch import Tensor

from ufo_large.balancing import METHODS, Balancer, Signals
from ufo_large.tracking.environment import commit_text, describe_environment

TASKS = ("large", "middle", "small")
SCALES_M = torch.tensor([100.0, 10.0, 1.0], dtype=torch.float64)
ANGLES_M = torch.deg2rad(torch.tensor([90.0, 210.0, 330.0], dtype=torch.float64))
CORNERS_M2 = torch.stack([ANGLES_M.cos(), ANGLES_M.sin()], dim=1)
START_2 = torch.tensor([2.0, -0.9], dtype=torch.float64)
START_OF_OWN = 0.5
NOISE = 0.1
LEARNING_RATE = 0.05
SGD_RATE = 0.01  # times the largest curvature, 100: 1
RESULTS = Path(__file__).parent / "results" / "conflict_cpu_202611.md"


def losses_of(shared_5: Tensor, heads_M: Tensor) -> Tensor:
    """Return the three losses; `shared_5` is z and then u."""
    apart_M = (shared_5[:2] - CORNERS_M2).square().sum(dim=1)
    return SCALES_M / 2 * (apart_M + (shared_5[2:] - 1).square() + (heads_M - 1).square())


def gradients_of(shared_5: Tensor, heads_M: Tensor) -> tuple[Tensor, Tensor]:
    """Return each task's gradient of the shared numbers, [M, 5], and of its own head, [M]."""
    to_z_M2 = SCALES_M[:, None] * (shared_5[:2] - CORNERS_M2)
    to_u_MM = torch.diag(SCALES_M * (shared_5[2:] - 1))
    return torch.cat([to_z_M2, to_u_MM], dim=1), SCALES_M * (heads_M - 1)


def start() -> tuple[Tensor, Tensor]:
    own_M = torch.full((3,), START_OF_OWN, dtype=torch.float64)
    return torch.cat([START_2, own_M]), own_M.clone()


def optimum_of(weights_M: Tensor) -> Tensor:
    """Return the losses at the minimum of the weighted sum, in closed form."""
    pull_M = weights_M * SCALES_M
    z_2 = (pull_M[:, None] * CORNERS_M2).sum(dim=0) / pull_M.sum()
    return losses_of(torch.cat([z_2, torch.ones(3, dtype=torch.float64)]), torch.ones(3, dtype=torch.float64))


def train(
    config: Balancer.Config, steps: int, seed: int, path: list[Tensor] | None = None, sgd: bool = False
) -> Tensor:
    """Return the three losses after training with one method; `path` collects z after each step."""
    balancer = config.build(TASKS, seed)
    generator = torch.Generator().manual_seed(seed)
    shared_5, heads_M = start()
    rate, kind = (SGD_RATE, torch.optim.SGD) if sgd else (LEARNING_RATE, torch.optim.Adam)
    optimizer = kind([shared_5, heads_M], lr=rate, foreach=False)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        shared_M5, private_M = gradients_of(shared_5, heads_M)
        shared_M5 = shared_M5 + NOISE * SCALES_M[:, None] * torch.randn(3, 5, generator=generator)
        private_M = private_M + NOISE * SCALES_M * torch.randn(3, generator=generator)
        weights_M = balancer(
            Signals(
                tasks=TASKS,
                losses_M=losses_of(shared_5, heads_M),
                gram_MM=shared_M5 @ shared_M5.T,
                step=step,
                total_steps=steps,
            )
        )
        shared_5.grad = weights_M @ shared_M5
        heads_M.grad = private_M * weights_M if balancer.scales_private else private_M
        optimizer.step()
        if path is not None:
            path.append(shared_5[:2].clone())
    return losses_of(shared_5, heads_M)


def contestants() -> dict[str, Balancer.Config]:
    """Return every method in its default form, and the settings that a fair comparison needs."""
    tuned = METHODS["fixed"].Config(by_task={"large": 0.03, "middle": 0.3, "small": 3.0})
    named = {"fixed": METHODS["fixed"].Config(), "fixed, tuned by hand": tuned}
    for name, cls in METHODS.items():
        named.setdefault(name, cls.Config())
    for name in ("tbgn", "tbgc"):
        other = not METHODS[name].scales_private
        named[f"{name}, heads {'too' if other else 'not'}"] = METHODS[name].Config(scale_private=other)
    named["tbgn, small task 1.3"] = METHODS["tbgn"].Config(shares={"small": 1.3})
    named["SGD: fixed"] = METHODS["fixed"].Config()
    named["SGD: tbgn, heads not"] = METHODS["tbgn"].Config()
    named["SGD: tbgn, heads too"] = METHODS["tbgn"].Config(scale_private=True)
    return named


def compare(steps: int, seeds: int) -> list[dict]:
    """Train with every method; return a row each, losses averaged over seeds."""
    begin_M = losses_of(*start())
    fair_M = optimum_of(1 / SCALES_M)
    rows = []
    for name, config in contestants().items():
        began = time.perf_counter()
        runs_SM = torch.stack(
            [train(config, steps, seed, sgd=name.startswith("SGD")) for seed in range(seeds)]
        )
        kept_SM = runs_SM / begin_M
        rows.append(
            {
                "method": name,
                "kept": kept_SM.mean(dim=0).tolist(),
                "worst_to_fair": (runs_SM / fair_M).max(dim=1).values.mean().item(),
                "fails": [t for t, kept in zip(TASKS, kept_SM.mean(dim=0).tolist(), strict=True) if kept > 1],
                "spread": kept_SM.std(dim=0).max().item() if seeds > 1 else 0.0,
                "ms_per_step": 1e3 * (time.perf_counter() - began) / steps / seeds,
            }
        )
        print(line_of(rows[-1]), flush=True)
    return rows


def line_of(row: dict) -> str:
    kept = " ".join(f"{value:8.3f}" for value in row["kept"])
    return f"{row['method']:26s} {kept} {row['worst_to_fair']:8.2f}  {', '.join(row['fails'])}"


def proof() -> str:
    """Return the closed-form figures that the table is to be read against."""
    begin_M = losses_of(*start())
    summed = ", ".join(f"{v:.3f}" for v in (optimum_of(torch.ones(3)) / begin_M).tolist())
    fair = ", ".join(f"{v:.3f}" for v in (optimum_of(1 / SCALES_M) / begin_M).tolist())
    return (
        f"By hand: at the minimum of the plain sum the tasks keep {summed} of their first losses; "
        f"at the centre of the triangle {fair}."
    )


def report(rows: list[dict], steps: int, seeds: int) -> str:
    """Return the result note as Markdown."""
    lines = [
        "# Planted conflict: what each balancing method does with it",
        "",
        f"`python benchmarks/conflict.py --steps {steps} --seeds {seeds} --write` on one CPU core "
        f"({platform.machine()}), float64, torch {torch.__version__}, commit "
        f"{commit_text(describe_environment()['commit'])}. The problem and the "
        'meaning of "fails" are in the script\'s first lines.',
        "",
        proof(),
        "",
        "Columns: the part of its first loss that each task keeps (below 1: it learned something; mean over "
        "seeds), the worst ratio of a task's loss to its loss at the centre (1.00: all tasks treated "
        "alike), the tasks that fail (end worse than they began), the largest standard deviation over seeds.",
        "",
        "| method | large | middle | small | worst to fair | fails | spread |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        kept = " | ".join(f"{value:.3f}" for value in row["kept"])
        lines.append(
            f"| {row['method']} | {kept} | {row['worst_to_fair']:.2f} | {', '.join(row['fails']) or '-'} "
            f"| {row['spread']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Planted conflict: what each balancing method does with it.")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--write", action="store_true", help=f"rewrite {RESULTS.name}, keeping the remarks below its table"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    print(proof())
    print(f"{'method':26s} {'large':>8s} {'middle':>8s} {'small':>8s} {'to fair':>8s}  fails")
    rows = compare(arguments.steps, arguments.seeds)
    if arguments.write:
        remarks = RESULTS.read_text().partition("\n## ")[1:] if RESULTS.exists() else ("", "")
        RESULTS.write_text(report(rows, arguments.steps, arguments.seeds) + "".join(remarks))
        print(f"wrote {RESULTS}")
    if arguments.json:
        print(json.dumps({"steps": arguments.steps, "seeds": arguments.seeds, "rows": rows}))


if __name__ == "__main__":
    main()
