"""Checkpoints of Hugging Face's transformers, in the names that timm knows.

Covers ViT, the vision towers of CLIP and SigLIP, DINOv2 (with registers too) and DINOv3. What timm's own
loader converts, as registers or position embeddings of another grid, is left to it.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from timm.layers import QuickGELU
from timm.models.eva import Eva
from torch import Tensor, nn

from ufo_large.config import read_json

_PREFIX = re.compile(r"^(?:(?:vision_model|vit|dinov2|dinov2_with_registers|dinov3_vit|model)\.)+")
_DROPPED = re.compile(
    r"text_model\.|text_projection\.|visual_projection\.|logit_(?:scale|bias)$"  # the other half of CLIP
    r"|classifier\.|pooler\.|decoder\.|embeddings\.mask_token$|.*\.position_ids$"  # heads, masks, indices
)
_LAYER = r"(?:encoder\.)?layers?\.(\d+)\."
_NAMES: tuple[tuple[str, str, int | None], ...] = (
    (r"embeddings\.(?:cls_token|class_embedding)", "cls_token", None),
    (r"embeddings\.position_embeddings?(?:\.weight)?", "pos_embed", None),
    (r"embeddings\.patch_embeddings?(?:\.projection)?\.(\w+)", r"patch_embed.proj.\1", None),
    (r"embeddings\.register_tokens", "register_tokens", None),
    (r"pre_layrnorm\.(\w+)", r"norm_pre.\1", None),
    (r"(?:layernorm|post_layernorm|norm)\.(\w+)", r"norm.\1", None),
    (_LAYER + r"(?:layernorm_before|layer_norm1|norm1)\.(\w+)", r"blocks.\1.norm1.\2", None),
    (_LAYER + r"(?:layernorm_after|layer_norm2|norm2)\.(\w+)", r"blocks.\1.norm2.\2", None),
    (_LAYER + r"(?:attention\.attention\.query|\w+\.q_proj)\.(\w+)", r"blocks.\1.attn.qkv.\2", 0),
    (_LAYER + r"(?:attention\.attention\.key|\w+\.k_proj)\.(\w+)", r"blocks.\1.attn.qkv.\2", 1),
    (_LAYER + r"(?:attention\.attention\.value|\w+\.v_proj)\.(\w+)", r"blocks.\1.attn.qkv.\2", 2),
    (_LAYER + r"(?:attention\.output\.dense|\w+\.o(?:ut)?_proj)\.(\w+)", r"blocks.\1.attn.proj.\2", None),
    (_LAYER + r"mlp\.gate_proj\.(\w+)", r"blocks.\1.mlp.fc1.\2", 0),
    (_LAYER + r"mlp\.up_proj\.(\w+)", r"blocks.\1.mlp.fc1.\2", 1),
    (_LAYER + r"(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in)\.(\w+)", r"blocks.\1.mlp.fc1.\2", None),
    (
        _LAYER + r"(?:output\.dense|mlp\.fc2|mlp\.weights_out|mlp\.down_proj)\.(\w+)",
        r"blocks.\1.mlp.fc2.\2",
        None,
    ),
    (_LAYER + r"layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma", None),
    (r"head\.probe", "attn_pool.latent", None),
    (r"head\.attention\.in_proj_(\w+)", r"attn_pool.qkv.\1", None),
    (r"head\.attention\.out_proj\.(\w+)", r"attn_pool.proj.\1", None),
    (r"head\.layernorm\.(\w+)", r"attn_pool.norm.\1", None),
    (r"head\.mlp\.(fc[12]\.\w+)", r"attn_pool.mlp.\1", None),
)
"""(name in transformers, name in timm, which piece of a fused parameter it is)."""


@dataclass(frozen=True, slots=True)
class Joined:
    """Pieces of one fused parameter, still in the file's memory; `tensor()` stacks them when asked."""

    pieces: tuple[Tensor, ...]

    @property
    def shape(self) -> torch.Size:
        return torch.Size((sum(len(p) for p in self.pieces), *self.pieces[0].shape[1:]))

    def tensor(self) -> Tensor:
        return torch.cat(self.pieces)


def is_from_transformers(names: Iterable[str]) -> bool:
    """Whether the names of a checkpoint are those of a transformers vision model."""
    return any(re.search(r"(?:^|\.)embeddings\.patch_embeddings?\.", name) for name in names)


def from_transformers(tensors: Mapping[str, Tensor], vit: nn.Module) -> dict[str, Tensor | Joined]:
    """Return the checkpoint for timm's loader of `vit`; names that no rule knows stay as they are.

    Text towers, classifiers, projections, the BERT-like pooler and mask tokens are left out. Raises
    ValueError for biases that `vit` has no place for.
    """
    wanted = set(vit.state_dict())
    out: dict[str, Tensor | Joined] = {}
    pieces: dict[str, dict[int, tuple[str, Tensor]]] = defaultdict(dict)
    for name, value in tensors.items():
        inner = _PREFIX.sub("", name)
        if _DROPPED.match(name) or _DROPPED.match(inner):
            continue
        target, piece = _translate(inner)
        if piece is not None:
            pieces[target][piece] = (name, value)
        elif target.startswith("attn_pool.qkv."):
            kind, width = target.rpartition(".")[2], len(value) // 3
            out.update({f"attn_pool.q.{kind}": value[:width], f"attn_pool.kv.{kind}": value[width:]})
        else:
            out[target] = value
    for target, found in pieces.items():
        out.update(_join(target, found, wanted))
    return _as_published(out, vit)


def _translate(name: str) -> tuple[str, int | None]:
    for pattern, target, piece in _NAMES:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(target), piece
    return name, None


def _join(
    target: str, found: dict[int, tuple[str, Tensor]], wanted: Collection[str]
) -> dict[str, Tensor | Joined]:
    values = {piece: value for piece, (_, value) in found.items()}
    part, _, kind = target.rpartition(".")
    if part.endswith("attn.qkv") and kind == "bias" and target not in wanted:
        return _separate_biases(part.removesuffix("qkv"), found, wanted)
    if part.endswith("fc1") and f"{part}_g.{kind}" in wanted and len(values) == 2:
        return {f"{part}_g.{kind}": values[0], f"{part}_x.{kind}": values[1]}
    if part.endswith("fc1") and set(values) == {1}:  # `up_proj` without a gate is a plain MLP's first layer
        return {target: values[1]}
    if len(values) == (3 if part.endswith("qkv") else 2):
        return {target: Joined(tuple(values[piece] for piece in sorted(values)))}
    return dict(found.values())  # incomplete: the caller lists them as unknown


def _separate_biases(
    prefix: str, found: dict[int, tuple[str, Tensor]], wanted: Collection[str]
) -> dict[str, Tensor]:
    """EVA's attention keeps biases of queries and values apart and has none for keys."""
    biases = {}
    for piece, (name, value) in found.items():
        target = f"{prefix}{'qkv'[piece]}_bias"
        if target in wanted:
            biases[target] = value
        elif value.any():
            raise ValueError(
                f"{name} is not zero, but the model has no such bias; choose timm's variant that has, as "
                "vit_base_patch16_dinov3_qkvb"
            )
    return biases


def _as_published(out: dict[str, Tensor | Joined], vit: nn.Module) -> dict[str, Tensor | Joined]:
    """Make a DINO model with registers look as its authors published it, which is what timm converts."""
    for name, ndim in (("cls_token", 3), ("pos_embed", 3)):
        while name in out and len(out[name].shape) < ndim:
            out[name] = out[name][None]
    if "register_tokens" in out:
        out["mask_token"] = torch.zeros(())  # timm's sign of DINOv2; it drops it
        if isinstance(vit, Eva):
            out["storage_tokens"] = out.pop("register_tokens")
    return out


def check_card(path: Path, vit: nn.Module) -> None:
    """Compare a transformers config.json with `vit` in what shapes do not show.

    ValueError for another number of attention heads, quick GELU on one side only, and a model that
    transformers knows only by code that lies beside the weights.
    """
    if not path.is_file() or "model_type" not in read_json(path, "copy it again"):
        return
    from transformers import AutoConfig

    try:
        card = AutoConfig.from_pretrained(path.parent, trust_remote_code=False)
    except ValueError as error:
        raise ValueError(
            f"{path}: a model that transformers does not have, and code that comes with weights is not run; "
            "give timm's weights of it, or the file without its config.json"
        ) from error
    card = getattr(card, "vision_config", card)
    heads = vit.blocks[0].attn.num_heads
    if card.num_attention_heads != heads:
        raise ValueError(
            f"{path}: {card.num_attention_heads} attention heads, but the trunk has {heads}; "
            f"set trunk.num_heads={card.num_attention_heads}"
        )
    quick = isinstance(vit.blocks[0].mlp.act, QuickGELU)
    if (card.hidden_act == "quick_gelu") != quick:
        raise ValueError(
            f"{path}: activation {card.hidden_act}, but the trunk's is {'' if quick else 'not '}quick GELU; "
            "choose timm's model with the other one, as vit_base_patch16_clip_quickgelu_224"
        )
