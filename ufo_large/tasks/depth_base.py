"""What heads for depth have in common: they say log depth; losses and predictions follow from it.

Legend: B images, W head width, H W height and width of a map.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ufo_large.kinds.depth import DepthPrediction
from ufo_large.losses import log_gradient_matching, scale_invariant_log
from ufo_large.structures import TaskBatch
from ufo_large.tasks.base import TaskHead
from ufo_large.tasks.conv_products import pointwise
from ufo_large.tasks.pyramid_fusion import enlarge
from ufo_large.tasks.stored_size import at_stored_size


class DepthHead(TaskHead):
    """A network writes `log_depth_BHW` (logarithm of metres) at `output_stride`; the rest is here.

    Log depth, because both losses are differences of logarithms: it is positive depth without a limit inside
    the network, and an error of 10 % costs the same near and far.
    """

    kind = "depth"
    output_stride: int

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(TaskHead.Config):
        """`width`: channels (None: the pyramid's). Predictions are cut to `min_metres` .. `max_metres`.

        `typical_metres`: what an untrained head says. `silog_lambda`: how far a common factor on an image's
        depth is forgiven, 0 not at all, 1 fully. `gradient_weight`: of gradient matching, 0 leaves it out.
        """

        width: int | None = None
        min_metres: float = 0.1
        max_metres: float = 200.0
        typical_metres: float = 10.0
        silog_lambda: float = 0.5
        gradient_weight: float = 0.5

        def __post_init__(self):
            if self.width is not None and self.width < 1:
                raise ValueError(f"width={self.width}: choose 1 or more, or none for the pyramid's")
            if not 0 < self.min_metres < self.typical_metres < self.max_metres < math.inf:
                raise ValueError(
                    f"min_metres={self.min_metres}, typical_metres={self.typical_metres}, "
                    f"max_metres={self.max_metres}: choose rising finite numbers above 0"
                )
            if not 0 <= self.silog_lambda <= 1:
                raise ValueError(f"silog_lambda={self.silog_lambda}: choose a value from 0 to 1")
            if not 0 <= self.gradient_weight < math.inf:
                raise ValueError(f"gradient_weight={self.gradient_weight}: choose 0 or more, finite")

    config: Config

    def losses(self, outputs: dict[str, Tensor], batch: TaskBatch) -> dict[str, Tensor]:
        """Return `silog`, and `gradient` if it has a weight, at the input's full size."""
        depth_BHW = batch.targets.depth_BHW
        self.watch.note({"log_depth": outputs["log_depth_BHW"], "depth": depth_BHW})
        height, width = depth_BHW.shape[-2:]
        log_depth_BHW = enlarge(outputs["log_depth_BHW"].float()[:, None], self.output_stride)[:, 0]
        log_depth_BHW = log_depth_BHW[:, :height, :width]
        losses = {"silog": scale_invariant_log(log_depth_BHW, depth_BHW, self.config.silog_lambda)}
        if self.config.gradient_weight:
            losses["gradient"] = self.config.gradient_weight * log_gradient_matching(log_depth_BHW, depth_BHW)
        return self.watch.losses(losses)

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: TaskBatch) -> list[DepthPrediction]:
        """Log depth, not depth, is resized, as in the losses."""
        nearest, farthest = self.config.min_metres, self.config.max_metres
        log_depth_B1HW = outputs["log_depth_BHW"][:, None]
        return [
            DepthPrediction(sample=sample, depth_HW=log_depth_1HW[0].exp().clamp(nearest, farthest).cpu())
            for sample, log_depth_1HW in at_stored_size(log_depth_B1HW, self.output_stride, batch)
        ]

    def graph_outputs(self, outputs: dict[str, Tensor], batch: TaskBatch) -> dict[str, Tensor]:
        """Return `depth`, float32 [B, H, W] in metres."""
        height, width = batch.images_BCHW.shape[-2:]
        log_depth_B1HW = enlarge(outputs["log_depth_BHW"].float()[:, None], self.output_stride)
        depth_BHW = log_depth_B1HW[:, 0, :height, :width].exp()
        return {"depth": depth_BHW.clamp(self.config.min_metres, self.config.max_metres)}


class LogDepthLayer(nn.Conv2d):
    """The last layer, [B, W, H, W] to [B, 1, H, W]; at first it says about the log of the typical depth.

    Computes in float32 always: bfloat16 knows only every 64th part of a logarithm of 2 to 4, which are steps
    of 1.6 % in depth on what should be a smooth surface.
    """

    def __init__(self, width: int, typical_metres: float):
        super().__init__(width, 1, 1)
        nn.init.normal_(self.weight, std=0.01)
        nn.init.constant_(self.bias, math.log(typical_metres))

    def forward(self, x_BWHW: Tensor) -> Tensor:
        with torch.autocast(x_BWHW.device.type, enabled=False):
            return pointwise(x_BWHW.float(), self.weight.float(), self.bias.float())
