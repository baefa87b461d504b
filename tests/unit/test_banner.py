"""What a run says before its first step and after its last."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ufo_large.data.loader import LoaderConfig
from ufo_large.runs.config import TaskConfig
from ufo_large.tracking.banner import RunFacts, TaskFacts, print_end, print_start, short

CARS = TaskFacts(
    name="cls",
    kind="classification",
    parameters=1_150_000_000,
    images=8144,
    micro_batch=8,
    mean_images=8,
    micro_batches=2,
    seen=20_000 * 128,
)
FACTS = RunFacts(
    recipe="contest_vit_g",
    steps=20_000,
    ranks=8,
    memory="zero3_bf16",
    weights="FILE",
    is_random=False,
    parameters=1_712_000_000,
    trained=1_712_000_000,
    trunk=1_500_000_000,
    tasks=(CARS,),
)


def printed(facts: RunFacts, terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=110)
    print_start(facts, console)
    return console.file.getvalue()


def test_the_banner_has_every_figure():
    """20,000 steps of 8 x 8 x 2 images are 314 times 8,144."""
    text = printed(FACTS)
    assert "contest_vit_g: 20 000 steps on 8 ranks, zero3_bf16" in text
    assert "weights     FILE" in text and "1.71 B in all\n" in text
    row = next(line for line in text.splitlines() if line.startswith("cls"))
    assert re.split(r"\s{2,}", row.strip()) == [
        *("cls", "classification", "1.15 B", "8 x 8 ranks x 2 = 128", "8 144", "314")
    ]
    assert "WARNING" not in text


def test_a_giant_that_starts_at_random_is_warned_of_in_red():
    random = replace(FACTS, is_random=True, weights="random initialisation")
    assert re.search(
        r"\x1b\[1;31mWARNING: the trunk's 1.5 B parameters start at random", printed(random, True)
    )
    assert "--set pretrained=FILE" in printed(random)
    assert "WARNING" not in printed(replace(random, trunk=90_000_000))


def test_frozen_parameters_are_told_apart():
    assert "1.71 B in all, 4.2 M trained" in printed(replace(FACTS, trained=4_200_000))


def test_a_micro_batch_larger_than_the_data_is_told():
    text = printed(replace(FACTS, ranks=1, tasks=(replace(CARS, micro_batch=999, images=144),)))
    assert "task 'cls': a micro-batch takes 999 images and the train split has 144" in text
    assert "lower tasks.classification.loader.micro_batch=999" in text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 100),
        ({"micro_batches": 0.5}, 50),
        ({"micro_batches_from": {"40": 3}}, 40 + 60 * 3),
        ({"micro_batches_from": {"90": 0, "200": 9}}, 90),
    ],
)
def test_images_of_the_run_follow_the_stages(options, expected):
    feed = TaskConfig(loader=LoaderConfig(micro_batch=1, image_size=(8, 8)), **options)
    assert feed.micro_batches_in(100) == expected


def test_the_end_quotes_what_a_shell_would_split():
    console = Console(file=io.StringIO(), width=110)
    print_end(
        [("weights", Path("my run/weights"))], [["python", "x.py", "--workdir", "my run"]], 260, 61.0, console
    )
    assert console.file.getvalue().splitlines() == [
        "finished: 260 steps in 1:01",
        "  weights     my run/weights",
        "next:",
        "  python x.py --workdir 'my run'",
    ]


def test_short_numbers():
    assert [short(n) for n in (7, 12_345, 86_400_000, 3_200_000_000)] == ["7", "12.3 k", "86.4 M", "3.2 B"]
