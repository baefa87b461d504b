"""Every rank issues the same collectives, as many as the committed table says: no deadlock, without GPUs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ufo_large.testing.distributed import run_ranks

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TABLE = BENCHMARKS / "results" / "collectives_cpu_202611.md"
QUICK = "toy, in turn/zero3_bf16/8"
MOST_GATHERS, MOST_BYTES = 25, 1.1


def traced(name: str, rank: int) -> tuple[dict, str]:
    """Return what one rank of a row saw, and the row as the table has it where all ranks see the same."""
    sys.path.insert(0, str(BENCHMARKS))
    import collectives

    row = next(row for row in collectives.rows() if row.name == name)
    seen = collectives.trace(row, rank)
    return seen, collectives.line(row, collectives.summary([seen]))


def digests() -> list[str]:
    """Return a digest for each of several orders of the same collectives, and for other groups and dtypes."""
    sys.path.insert(0, str(BENCHMARKS))
    import one_rank
    import torch
    import torch.distributed as dist
    from collective_calls import Collectives

    one_rank.join_fake_world(8, rank=3)
    node, found = dist.new_group([2, 3]), []
    short, long, half = torch.zeros(3), torch.zeros(4), torch.zeros(3, dtype=torch.bfloat16)
    for order in ([short, long], [long, short], [short, half], [short], [short, long]):
        with Collectives() as seen:
            for tensor in order:
                dist.all_reduce(tensor)
        found.append(seen.digest())
    with Collectives() as seen:
        dist.all_reduce(short, group=node)
        dist.all_reduce(long)
    return [*found, seen.digest()]


def by_row(text: str) -> dict[tuple[str, ...], str]:
    """Return a table's lines of small models by schedule, config and number of ranks."""
    lines = [line for line in text.splitlines() if line.startswith("| toy")]
    return {tuple(line.split(" | ")[:3]): line for line in lines}


def test_a_digest_tells_order_size_dtype_and_group_apart():
    *others, again, in_a_node = run_ranks(digests, 1)[0]
    assert again == others[0]
    assert len({*others, in_a_node}) == len(others) + 1


def test_ranks_with_and_without_targets_issue_the_same_collectives():
    """Of eight ranks the first and the last, whose images hold nothing; the slow test below takes all."""
    first, last = (run_ranks(traced, 1, QUICK, rank)[0] for rank in (0, 7))
    assert last[0]["digests"] == first[0]["digests"]
    assert first[1] in TABLE.read_text().splitlines()


@pytest.mark.slow
def test_all_ranks_of_the_small_models_issue_the_same_collectives():
    command = [sys.executable, str(BENCHMARKS / "collectives.py"), "--json", "--rows", "toy"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert all(row["same"] for row in found.values())
    lines = by_row(done.stdout)
    assert len(lines) == len(found)
    assert {row: lines[row] for row in by_row(TABLE.read_text())} == by_row(TABLE.read_text())


@pytest.mark.slow
def test_a_step_of_vit_g_takes_few_gathers_and_no_byte_twice():
    command = [sys.executable, str(BENCHMARKS / "collectives.py"), "--json", "--rows", "narrow"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for name, row in json.loads(done.stdout.splitlines()[-1]).items():
        assert row["calls"]["allgather"] <= MOST_GATHERS, name
        assert row["gathered"] <= MOST_BYTES * row["need"], name
