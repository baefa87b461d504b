"""A head's own tokens in the last blocks of a timm ViT (EoMT, arXiv:2503.19108).

Legend: B images, L tokens of an image, Q queries, D width.
"""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


class QueriedBlocks(nn.Sequential):
    """The blocks of a ViT in turn; where a head brings queries, the last ones see them behind the patches.

    Queries join between blocks, not inside one, so that a checkpointed block has them as its input.
    """

    joining: tuple[Tensor, int] | None = None

    def forward(self, x_BLD: Tensor) -> Tensor:
        queries_QD, last = self.joining or (None, 0)
        for index, block in enumerate(self):
            if index == len(self) - last:
                queries_BQD = queries_QD.to(x_BLD.dtype).expand(x_BLD.shape[0], -1, -1)
                x_BLD = torch.cat([x_BLD, queries_BQD], dim=1)
            x_BLD = block(x_BLD)
        return x_BLD


def join_queries(vit: nn.Module) -> None:
    """Let the blocks of `vit` take queries; a model whose blocks see more than tokens stays as it is."""
    if isinstance(vit, VisionTransformer):
        vit.blocks.__class__ = QueriedBlocks


def features_with_queries(
    vit: nn.Module, images_BCHW: Tensor, queries_QD: Tensor, last: int
) -> tuple[Tensor, Tensor]:
    """Return timm's own tokens, [B, L, D], and the queries, [B, Q, D], after the `last` blocks."""
    vit.blocks.joining = (queries_QD, last)
    try:
        tokens_BLD = vit.forward_features(images_BCHW)
    finally:
        vit.blocks.joining = None
    own = len(queries_QD)
    return tokens_BLD.split((tokens_BLD.shape[1] - own, own), dim=1)


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
