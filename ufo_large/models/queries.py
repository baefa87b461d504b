"""A head's own tokens in the last blocks of a timm ViT (EoMT, arXiv:2503.19108).

Legend: B images, L tokens of an image, Q queries, D width.
"""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ufo_large.structures import Queries


class QueriedBlocks(nn.Sequential):
    """The blocks of a ViT in turn; where a head brings queries, the last ones see them behind the patches.

    Queries join between blocks, not inside one, so that a checkpointed block has them as its input.
    """

    joining: Queries | None = None
    seen: list[Tensor] | None = None
    """Where there is a list, it gets what goes into each block that queries pass through."""

    def forward(self, x_BLD: Tensor) -> Tensor:
        first = len(self) - (self.joining.blocks if self.joining else 0)
        for index, block in enumerate(self):
            if index == first:
                queries_BQD = self.joining.tokens_QD.to(x_BLD.dtype).expand(x_BLD.shape[0], -1, -1)
                x_BLD = torch.cat([x_BLD, queries_BQD], dim=1)
            if self.seen is not None and index >= first:
                self.seen.append(x_BLD)
            x_BLD = block(x_BLD)
        return x_BLD


def join_queries(vit: nn.Module) -> None:
    """Let the blocks of `vit` take queries; a model whose blocks see more than tokens stays as it is."""
    if isinstance(vit, VisionTransformer):
        vit.blocks.__class__ = QueriedBlocks


def features_with_queries(
    vit: nn.Module, images_BCHW: Tensor, queries: Queries
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return timm's own tokens, [B, L, D], and the queries, [B, Q, D], after the last blocks.

    For queries that ask for `every_block`, while training: what goes into each of these blocks too, without
    a norm, [blocks, B, L + Q, D].
    """
    seen = [] if queries.every_block and vit.training else None
    vit.blocks.joining, vit.blocks.seen = queries, seen
    try:
        tokens_BLD = vit.forward_features(images_BCHW)
    finally:
        vit.blocks.joining = vit.blocks.seen = None
    earlier_NBLD = None if seen is None else torch.stack(seen)
    return *parted(tokens_BLD, queries), earlier_NBLD


def parted(tokens_BLD: Tensor, queries: Queries) -> tuple[Tensor, ...]:
    """Return the trunk's own tokens and the queries behind them."""
    own = len(queries.tokens_QD)
    return tokens_BLD.split((tokens_BLD.shape[-2] - own, own), dim=-2)


def check_queries(vit: nn.Module, last: int, window: int, frozen: bool) -> None:
    """Raise ValueError where the last blocks of a trunk cannot take queries or give them no gradient."""
    if not isinstance(vit.blocks, QueriedBlocks):
        raise ValueError(
            "queries in the trunk need a timm VisionTransformer, whose blocks see tokens alone; this is a "
            f"{type(vit).__name__}: choose another trunk.name or another head"
        )
    if last > len(vit.blocks):
        raise ValueError(f"blocks={last}: the trunk has {len(vit.blocks)} blocks for a head's queries")
    if window:
        raise ValueError(
            f"trunk.window={window}: windows hold patches, no queries; set it to 0 or choose another head"
        )
    if frozen:
        raise ValueError(
            "trunk.frozen=true: queries that pass through a frozen trunk would not learn; set it to false or "
            "choose another head"
        )
