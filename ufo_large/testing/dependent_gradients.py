"""Task gradients on which solvers err: blocks that share nothing, linearly dependent, orthogonal to rounding.

Legend: M tasks (2 to 8), N numbers of a gradient.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCKS = ((3, 2), (3, 3), (3, 3, 2), (4, 4))


def dependent_gradients(seeds: int, *, spread: float = 1.0) -> Iterator[tuple[str, Tensor]]:
    """Yield named gradients [M, N], `seeds` of each kind; their lengths differ by up to a factor `spread`."""
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        for name, gradients_MN in _kinds(generator):
            exponents_M = torch.rand(len(gradients_MN), generator=generator, dtype=torch.float64)
            yield f"{name}, seed {seed}", gradients_MN * spread ** exponents_M[:, None]


def orthogonal_gradients(num_tasks: int, generator: torch.Generator) -> Tensor:
    """Return unit gradients [M, 2 M] that are orthogonal up to rounding, in no special position."""
    return torch.linalg.qr(_normal(2 * num_tasks, 2 * num_tasks, generator))[0][:num_tasks]


def _kinds(generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    for sizes in BLOCKS:
        blocks_MN = torch.block_diag(*(_normal(size, 2 * size, generator) for size in sizes))
        yield f"blocks {sizes}", blocks_MN
        width = blocks_MN.shape[1]
        yield f"turned blocks {sizes}", blocks_MN @ orthogonal_gradients(width, generator)
    for num_tasks, rank in ((3, 1), (3, 2), (5, 3), (8, 2), (8, 4), (8, 7)):
        yield (
            f"{num_tasks} of rank {rank}",
            _normal(num_tasks, rank, generator) @ _normal(rank, 12, generator),
        )
    yield "blocks of rank 2", torch.block_diag(_normal(4, 2, generator), _normal(4, 2, generator))
    for num_tasks in (2, 5, 8):
        orthogonal_MN = orthogonal_gradients(num_tasks, generator)
        yield f"{num_tasks} orthogonal", orthogonal_MN
        for size in (1e-15, 1e-9, 1e-4):
            noise_MN = size * _normal(*orthogonal_MN.shape, generator)
            yield f"{num_tasks} orthogonal but for {size:g}", orthogonal_MN + noise_MN
    copied_MN = _normal(4, 10, generator)
    yield "copied and reversed", torch.cat([copied_MN, copied_MN[:2], -copied_MN[2:]])


def _normal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)
