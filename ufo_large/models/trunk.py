"""Any timm ViT as the trunk that all tasks share, parts of its blocks replaced by routed expert banks.

Legend: B images, C channels, H W pixels of the padded input, h w patches, L tokens, D width.
"""

import functools
from dataclasses import dataclass
from typing import Literal

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ufo_large.config import choice, did_you_mean
from ufo_large.models.checkpointing import CHECKPOINTING, KEPT, Checkpointing, checkpoint_block
from ufo_large.models.compiling import compile_units
from ufo_large.models.expert_banks import banks_of, graft_banks, units_of
from ufo_large.models.lora import LoraConfig, has_adapters
from ufo_large.models.positions import OnGrid, is_antialiased
from ufo_large.models.queries import check_queries, features_with_queries, join_queries, parted
from ufo_large.models.stem import GradientPatchEmbed
from ufo_large.models.windows import Grid, default_global_blocks, window_attention
from ufo_large.models.without_values import init_options
from ufo_large.routing import ROUTERS, ExpertBank, Route, Router
from ufo_large.structures import Features, Queries

_SHAPE_FIELDS = ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "init_values")
STEMS = {"patch": {}, "gradients": {"embed_layer": GradientPatchEmbed}}


class Trunk(nn.Module):
    """A timm VisionTransformer or Eva: uint8 images in, pooled vector and feature map out.

    Before training, its output is timm's own for the same weights. Images are normalised here with the
    model's own mean and std; the padding of a batch becomes the mean colour, whatever the loader wrote there.
    Positions are interpolated, or rotary, so any input size works.

    The ViT runs through its own `__call__`, and each block through its own: under ZeRO-3 parameters are
    whole only there.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """`name`: a timm model; `img_size` to `init_values` override its shape, None keeps timm's.

        `img_size`: the size whose grid the position embeddings are stored for; inputs may have any other, and
        positions are resampled to it bicubically, with `antialias` or without (None: see `is_antialiased`).
        `stem`: timm's patch embedding, or a `GradientPatchEmbed`, for training from scratch. `drop_path`:
        drop rate of the last block, rising linearly from 0. `checkpointing`: see `checkpoint_block`.
        `compile`: run the blocks compiled while training (see `compile_units`); None: on GPUs.
        `window`: side, in patches, of the windows that blocks attend within (0: the whole
        image); `global_blocks` still see the whole image (None: the last block of each quarter).
        `lora`: freeze what the tasks share and train adapters on it. `frozen`: train nothing of the trunk,
        experts included, so that only heads and pyramids learn. `frozen_blocks`: keep the embeddings and
        as many of the first blocks as they are; no gradient passes through them, but for a head's queries.
        """

        name: str = "vit_base_patch16_224"
        img_size: int | None = None
        patch_size: int | None = None
        embed_dim: int | None = None
        depth: int | None = None
        num_heads: int | None = None
        mlp_ratio: float | None = None
        init_values: float | None = None
        antialias: bool | None = None
        stem: Literal["patch", "gradients"] = "patch"
        drop_path: float = 0.0
        checkpointing: Checkpointing = "none"
        compile: bool | None = None
        window: int = 0
        global_blocks: tuple[int, ...] | None = None
        router: Router.Config = choice(ROUTERS, "shared")
        lora: LoraConfig | None = None
        frozen: bool = False
        frozen_blocks: int = 0

        def __post_init__(self):
            if not timm.is_model(self.name.split(".")[0]):
                known = timm.list_models(module="vision_transformer") + timm.list_models(module="eva")
                raise ValueError(
                    f"trunk.name={self.name!r} is no timm model.{did_you_mean(self.name, known)}"
                )
            if not 0.0 <= self.drop_path < 1.0:
                raise ValueError(f"trunk.drop_path={self.drop_path}: must be at least 0 and below 1")
            if self.window < 0 or (self.global_blocks is not None and not self.window):
                raise ValueError(
                    f"trunk.window={self.window}: must be 0 (off) or positive; "
                    "trunk.global_blocks has an effect with windows only"
                )
            if self.stem not in STEMS:
                raise ValueError(f"trunk.stem={self.stem!r}.{did_you_mean(self.stem, STEMS)}")
            if self.checkpointing not in CHECKPOINTING:
                hint = did_you_mean(self.checkpointing, CHECKPOINTING)
                raise ValueError(f"trunk.checkpointing={self.checkpointing!r}.{hint}")
            if self.frozen and (self.lora is not None or self.drop_path):
                raise ValueError(
                    f"trunk.frozen trains nothing of the trunk: set trunk.lora=none (is {self.lora}) and "
                    f"trunk.drop_path=0 (is {self.drop_path})"
                )
            if self.frozen_blocks < 0 or (self.frozen_blocks and (self.frozen or self.lora is not None)):
                raise ValueError(
                    f"trunk.frozen_blocks={self.frozen_blocks}: must be 0 (off) or positive; trunk.frozen "
                    "and trunk.lora freeze all blocks by themselves"
                )
            if self.lora is not None and isinstance(self.router, ROUTERS["token_topk"].Config):
                raise ValueError(
                    "trunk.lora freezes what tasks share, and router=token_topk shares its experts: they "
                    "would stay the copies of one MLP that they are; use router=shared, task, learned or "
                    "residual"
                )

        @property
        def is_antialiased(self) -> bool:
            """Whether positions are resampled with antialias."""
            return is_antialiased(self.name) if self.antialias is None else self.antialias

        @property
        def frozen_unless(self) -> str:
            """Return the setting that would train all of the trunk; nothing where all of it trains."""
            off = {"lora=none": self.lora is not None, "frozen=false": self.frozen}
            return next((s for s, on in off.items() if on), "frozen_blocks=0" if self.frozen_blocks else "")

        def shape(self) -> dict[str, int | float | None]:
            """Return the fields that override timm's shape, under timm's names."""
            return {name: getattr(self, name) for name in _SHAPE_FIELDS}

        def build_vit(self, **changes) -> VisionTransformer | Eva:
            """Return timm's own dense model of this shape, without classifier; `changes` override fields."""
            options = {k: v for k, v in {**self.shape(), **changes}.items() if v is not None}
            options |= STEMS[self.stem] | init_options(self.name)
            try:
                vit = timm.create_model(
                    self.name, num_classes=0, dynamic_img_size=True, drop_path_rate=self.drop_path, **options
                )
            except (TypeError, AssertionError) as error:
                if "embed_layer" in str(error):
                    raise ValueError(
                        f"trunk.stem={self.stem!r} needs a timm VisionTransformer, which "
                        f"trunk.name={self.name!r} is not; set trunk.stem=patch"
                    ) from error
                raise ValueError(
                    f"trunk.name={self.name!r} cannot be the trunk, which needs a plain ViT: a timm "
                    f"VisionTransformer or Eva model, of a shape that it allows ({error})"
                ) from error
            except RuntimeError as error:
                raise ValueError(
                    f"trunk.name={self.name!r} cannot be built here ({error}); sharding forbids what "
                    "computes while it is built, as hybrid stems and mixed rotary embeddings do: use a plain "
                    "ViT, or ZeRO stage 1 or 2"
                ) from error
            if not isinstance(vit, VisionTransformer | Eva):
                raise ValueError(
                    f"trunk.name={self.name!r} is a {type(vit).__name__}; the trunk needs a plain ViT: "
                    "a timm VisionTransformer or Eva model"
                )
            return vit

        def build(self, tasks: tuple[str, ...]) -> "Trunk":
            """Return the trunk routed for `tasks`."""
            return Trunk(self, tasks)

    def __init__(self, config: Config, tasks: tuple[str, ...]):
        super().__init__()
        self.config = config
        self.tasks = tasks
        self.route = Route()
        self.vit = config.build_vit()
        if config.antialias is not None and self.vit.pos_embed is None:
            raise ValueError(
                f"trunk.antialias={config.antialias} has no effect: {config.name} has no positions; leave it"
            )
        depth = len(self.vit.blocks)
        self.router = config.router.build(tasks, self.route, depth)
        if config.checkpointing == "offload" and not self.router.keeps_outputs_only:
            raise ValueError(
                "trunk.checkpointing=offload loses the auxiliary losses of this routing scheme; "
                "use selective or full"
            )
        self.grid = Grid()
        if config.window:
            self._restrict_attention()
        graft_banks(self.vit, self.router, config.name)
        if config.lora is not None:
            config.lora.adapt(self.vit)
        if config.frozen:
            self.vit.requires_grad_(False)
        if config.frozen_blocks:
            self._freeze_first(config.frozen_blocks)
        for block in self.vit.blocks:
            checkpoint_block(block, config.checkpointing, config.compile)
        kept = KEPT if config.checkpointing == "selective" else None
        compile_units(self._units_of_fixed_sizes(), config.compile, kept)
        join_queries(self.vit)
        self.vit.__class__ = _with_trunk_forward(type(self.vit), config.is_antialiased)
        self._pixels: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def _freeze_first(self, count: int) -> None:
        if count >= self.depth:
            raise ValueError(
                f"trunk.frozen_blocks={count}: the trunk has {self.depth} blocks, and some must train; "
                "trunk.frozen=true trains heads alone"
            )
        below = [name for name in self.banks() if int(name.split(".")[1]) < count]
        if below:
            raise ValueError(
                f"trunk.frozen_blocks={count}: the experts of {', '.join(below)} would not learn; set "
                "trunk.router.blocks to later blocks, or freeze fewer"
            )
        self.vit.requires_grad_(False)
        for module in (*self.vit.blocks[count:], *modules_after_blocks(self.vit)):
            module.requires_grad_(True)
        self.vit.blocks[count].register_forward_pre_hook(_begin_gradients)

    def _restrict_attention(self) -> None:
        chosen = self.config.global_blocks
        whole = default_global_blocks(self.depth) if chosen is None else chosen
        wrong = [i for i in whole if not 0 <= i < self.depth]
        if wrong or len(set(whole)) == self.depth:
            raise ValueError(
                f"trunk.global_blocks={whole}: name some, not all, of the blocks 0 to {self.depth - 1}"
            )
        for index, block in enumerate(self.vit.blocks):
            if index not in whole:
                if not isinstance(getattr(block, "attn", None), nn.Module):
                    raise ValueError(
                        f"trunk.name={self.config.name!r}: its {type(block).__name__} has no separate "
                        "attention to restrict; set trunk.window=0"
                    )
                window_attention(block.attn, self.config.window, self.vit.num_prefix_tokens, self.grid)

    @property
    def width(self) -> int:
        """D, the width of tokens and of the pooled vector."""
        return self.vit.embed_dim

    @property
    def stride(self) -> int:
        """Pixels a cell of the feature map: the patch size, times the stride of a convolutional stem."""
        return self.vit.patch_embed.feat_ratio()

    @property
    def depth(self) -> int:
        return len(self.vit.blocks)

    def units(self) -> list[nn.Module]:
        """Return modules whose parameters are always used together; their inputs and outputs are tensors.

        A whole block, or in a routed block its attention and MLP, or each of their copies.
        """
        return [unit for block in self.vit.blocks for unit in units_of(block)]

    def _units_of_fixed_sizes(self) -> list[nn.Module]:
        """Return the units that a task gives the same number of tokens at each call: one graph will do."""
        split = {unit for bank in self.banks().values() if bank.splits_tokens for unit in bank.units()}
        return [unit for unit in self.units() if unit not in split]

    def banks(self) -> dict[str, ExpertBank]:
        """Return the expert banks by their place in the ViT, as `blocks.3.mlp`."""
        return banks_of(self.vit)

    @property
    def shared_blocks(self) -> int:
        """How many first blocks have no expert bank: of the same images all tasks get the same from them."""
        return min((int(place.split(".")[1]) for place in self.banks()), default=self.depth)

    def restore_tables(self) -> None:
        """Compute what is neither parameter nor saved anew, such as the frequencies of rotary embeddings.

        Made while a bf16 model is sharded they are rounded to 8 bits; evaluation has them in float32.
        """
        for module in self.vit.modules():
            if not hasattr(module, "init_non_persistent_buffers"):  # timm's own, in newer releases
                continue
            for name, table in list(module.named_buffers(recurse=False)):
                if table.is_floating_point() and name in module._non_persistent_buffers_set:
                    setattr(module, name, table.float())
            module.init_non_persistent_buffers()

    def add_task(self, task: str) -> None:
        """Add a task to a trained trunk; what it computes for the others does not change by one bit."""
        if task in self.tasks:
            raise ValueError(f"the model has the task {task!r} already")
        if has_adapters(self.vit):
            raise ValueError("new experts grow from dense modules: call merge_lora on the model first")
        for bank in self.banks().values():
            bank.add_task(task)
        self.tasks = (*self.tasks, task)

    def train(self, mode: bool = True) -> "Trunk":
        """Set the mode; what is frozen computes what it will compute when predicting."""
        super().train(mode and not self.config.frozen)
        for block in self.vit.blocks[: self.config.frozen_blocks]:
            block.eval()
        return self

    def allow_queries(self, last_blocks: int) -> None:
        """Raise ValueError where a head's queries cannot join the last blocks."""
        check_queries(self.vit, last_blocks, self.config.window, self.config.frozen)

    def require(self, task: str) -> None:
        """Raise ValueError for a task the trunk was not built for."""
        if task not in self.tasks:
            raise ValueError(f"the model has no task {task!r}.{did_you_mean(task, self.tasks)}")

    def forward(
        self,
        images_BCHW: Tensor,
        sizes_B2: Tensor,
        task: str,
        queries: Queries | None = None,
    ) -> Features:
        """Return the features of uint8 RGB images for `task`.

        `sizes_B2`: (height, width) of the valid part of each image. `queries` pass through the last
        blocks too. `Features.image_size` is the size after padding to whole patches. Raises
        ValueError for a task the trunk was not built for.
        """
        self.require(task)
        images_BCHW = self._normalise(images_BCHW, sizes_B2)
        height, width = images_BCHW.shape[-2:]
        self.grid.height, self.grid.width = height // self.stride, width // self.stride
        if self.config.lora is not None and torch.is_grad_enabled():
            # ZeRO-3 frees a module's weights too early in the backward pass if no input has a gradient
            images_BCHW.requires_grad_()
        self.route.begin(task, self.training)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.frozen):
            tokens_BLD, pooled_BD, queries_BQD, earlier = self.vit(images_BCHW, queries)
        if self.config.frozen and torch.is_grad_enabled():  # for the same reason, of heads and pyramids
            tokens_BLD, pooled_BD = (x.detach().requires_grad_() for x in (tokens_BLD, pooled_BD))
        self.route.end()
        if earlier is not None:
            earlier = (self._on_grid(earlier[0]), earlier[1])
        map_BDhw = self._on_grid(tokens_BLD)
        return Features(pooled_BD, map_BDhw, self.stride, (height, width), {}, queries_BQD, earlier)

    def _on_grid(self, tokens_BLD: Tensor) -> Tensor:
        return tokens_BLD.transpose(-1, -2).unflatten(-1, (self.grid.height, self.grid.width))

    def _normalise(self, images_BCHW: Tensor, sizes_B2: Tensor) -> Tensor:
        mean_C11, scale_C11 = self._pixel_statistics(images_BCHW.device)
        height, width = images_BCHW.shape[-2:]
        rows_H1 = torch.arange(height, device=images_BCHW.device)[:, None]
        columns_1W = torch.arange(width, device=images_BCHW.device)[None]
        heights_B111, widths_B111 = sizes_B2[:, :, None, None, None].unbind(1)
        inside_B1HW = (rows_H1 < heights_B111) & (columns_1W < widths_B111)
        normal_BCHW = ((images_BCHW - mean_C11) * scale_C11).masked_fill(~inside_B1HW, 0.0)
        padding = (0, -width % self.stride, 0, -height % self.stride)
        return F.pad(normal_BCHW, padding).to(next(self.vit.parameters()).dtype)

    def _pixel_statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        # plain tensors, not buffers: a bf16 engine would round buffers to 8 bits
        if device not in self._pixels:
            mean, std = (self.vit.pretrained_cfg[k] for k in ("mean", "std"))
            mean_C11, std_C11 = (torch.tensor(v, device=device).view(-1, 1, 1) * 255 for v in (mean, std))
            self._pixels[device] = (mean_C11, 1 / std_C11)
        return self._pixels[device]


def modules_after_blocks(vit: VisionTransformer | Eva) -> list[nn.Module]:
    """Return what a ViT of timm has behind its blocks: norms, attention pooling."""
    found = (getattr(vit, name, None) for name in ("norm", "fc_norm", "attn_pool"))
    return [module for module in found if isinstance(module, nn.Module)]


def _begin_gradients(block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Give the first trained block an input with a gradient, which ZeRO-3 waits for to free its weights."""
    if torch.is_grad_enabled():
        inputs[0].requires_grad_()


@functools.cache
def _with_trunk_forward(vit_class: type[nn.Module], antialias: bool) -> type[nn.Module]:
    def pos_embed(vit: VisionTransformer | Eva, x_BhwD: Tensor) -> Tensor | tuple[Tensor, Tensor | None]:
        return vit_class._pos_embed(OnGrid(vit, tuple(x_BhwD.shape[1:3]), antialias), x_BhwD)

    members = {"forward": _trunk_forward, "__module__": vit_class.__module__}
    if not antialias:  # timm's own way is with it
        members["_pos_embed"] = pos_embed
    return type(vit_class.__name__, (vit_class,), members)


def _trunk_forward(
    vit: VisionTransformer | Eva,
    images_BCHW: Tensor,
    queries: Queries | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, tuple[Tensor, Tensor] | None]:
    """Return the normalised patch tokens, [B, hw, D], the pooled vector, [B, D], and the queries, [B, Q, D].

    The last is `Features.earlier`, its patches as tokens. Models that pool before their last norm have no
    norm on tokens; the map gets that last norm too.
    """
    queries_BQD = earlier_NBLD = None
    if queries is None:
        tokens_BLD = vit.forward_features(images_BCHW)
    else:
        tokens_BLD, queries_BQD, earlier_NBLD = features_with_queries(vit, images_BCHW, queries)
    pooled_BD = vit.forward_head(tokens_BLD, pre_logits=True)
    patches_BLD = tokens_BLD[:, vit.num_prefix_tokens :]
    norm = vit.norm
    if isinstance(norm, nn.Identity):
        norm = vit.fc_norm
        patches_BLD = norm(patches_BLD)
        queries_BQD = None if queries_BQD is None else norm(queries_BQD)
    if pooled_BD.ndim == 3:  # timm pools nothing for this model
        pooled_BD = patches_BLD.mean(1)
    earlier = None
    if earlier_NBLD is not None:
        earlier = parted(norm(earlier_NBLD)[:, :, vit.num_prefix_tokens :], queries)
    return patches_BLD, pooled_BD, queries_BQD, earlier
