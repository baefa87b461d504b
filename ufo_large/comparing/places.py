"""Where a training runs: its own cores, or its own GPUs, while others run beside it."""

import os
from dataclasses import dataclass

from ufo_large.finetuning.machine import Machine, visible_gpus


@dataclass(frozen=True, slots=True)
class Place:
    """`cores`: numbers of processor cores. `gpus`: as CUDA_VISIBLE_DEVICES names them. Empty leaves all."""

    cores: tuple[int, ...] = ()
    gpus: tuple[str, ...] = ()


def places(machine: Machine, jobs: int, ranks: int, cores: int | None) -> list[Place]:
    """Share the machine among `jobs` trainings. ValueError where it has less than they take.

    `cores`: of each training; None leaves them all to all.
    """
    if machine.gpus and jobs * ranks > machine.gpus:
        raise ValueError(
            f"--jobs {jobs} of --ranks {ranks} take {jobs * ranks} GPUs, and there are "
            f"{machine.gpus}; give fewer"
        )
    there = sorted(os.sched_getaffinity(0))
    if cores is not None and cores * jobs > len(there):
        raise ValueError(
            f"--jobs {jobs} with --cores {cores} take {cores * jobs} cores, and there are "
            f"{len(there)}; give fewer"
        )
    each, gpus = cores or 0, ranks if machine.gpus else 0
    names = visible_gpus() or [str(number) for number in range(machine.gpus)]
    return [
        Place(tuple(there[i * each : (i + 1) * each]), tuple(names[i * gpus : (i + 1) * gpus]))
        for i in range(jobs)
    ]
