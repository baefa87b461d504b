"""Low-rank adapters on the path that all tasks share; the pretrained weights there stay as they are.

LoRA (Hu et al. 2021, arXiv:2106.09685): y = W x + alpha / rank * B A x with W frozen, A [rank, in] random and
B [out, rank] zero at first. The layers are peft's own, imported only where adapters are made or merged: that
takes a second. Experts, heads and pyramids train whole, as without.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ufo_large.config import did_you_mean
from ufo_large.structures import role_of

Target = Literal["attention", "mlp"]
TARGETS: tuple[Target, ...] = get_args(Target)
"""Which linear layers of a block can get an adapter: all of its attention, all of its MLP."""

_ATTRIBUTES = {"attention": "attn", "mlp": "mlp"}
_ADAPTER = "shared"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """`rank` of the adapters; their product is scaled by `alpha` / `rank`. `targets`: where they are put."""

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[Target, ...] = TARGETS

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"lora.rank={self.rank}: must be at least 1; lora=none turns adapters off")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"lora.alpha={self.alpha}: must be positive and finite")
        for target in self.targets:
            if target not in TARGETS:
                raise ValueError(f"lora.targets names {target!r}.{did_you_mean(target, TARGETS)}")
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise ValueError(f"lora.targets={self.targets}: name some of {', '.join(TARGETS)}, each once")

    def adapt(self, vit: nn.Module) -> None:
        """Freeze the shared parameters of a routed ViT and put adapters on its shared linear layers.

        Outputs do not change. Raises ValueError where every target is an expert, or where the rank is no
        smaller than a layer.
        """
        places = self._places(vit)
        if not places:
            raise ValueError(
                f"lora.targets={self.targets}: no block has such a layer that tasks share; name a part that "
                "the router leaves shared, or set lora=none"
            )
        for parameter in vit.parameters():
            if role_of(parameter).kind == "shared":
                parameter.requires_grad_(False)
        for place in places:
            vit.set_submodule(place, self._adapted(vit.get_submodule(place), place))
        for module in vit.modules():
            if hasattr(module, "qkv_bias_separate") and module.qkv is not None and has_adapters(module.qkv):
                # else timm's Eva multiplies by `qkv.weight` itself and would pass the adapter by
                module.qkv_bias_separate = True

    def _places(self, vit: nn.Module) -> list[str]:
        return [
            f"blocks.{index}.{_ATTRIBUTES[target]}.{name}"
            for index, block in enumerate(vit.blocks)
            for target in self.targets
            for name, layer in getattr(block, _ATTRIBUTES[target], nn.Module()).named_modules()
            if isinstance(layer, nn.Linear) and role_of(layer.weight).kind == "shared"
        ]

    def _adapted(self, layer: nn.Linear, place: str) -> nn.Module:
        import peft
        from peft.tuners import lora

        smallest = min(layer.in_features, layer.out_features)
        if self.rank >= smallest:
            raise ValueError(
                f"lora.rank={self.rank}: {place} has a full rank of {smallest}; give a lower one"
            )
        # not initialised by peft: that needs whole parameters; A is drawn as torch draws a linear layer
        options = peft.LoraConfig(r=self.rank, lora_alpha=self.alpha, init_lora_weights=False)
        adapted = lora.Linear(layer, _ADAPTER, options, r=self.rank, lora_alpha=self.alpha)
        nn.init.zeros_(adapted.lora_B[_ADAPTER].weight)
        return adapted


def has_adapters(module: nn.Module) -> bool:
    return any(is_adapter(name) for name, _ in module.named_parameters())


def merge_lora(module: nn.Module) -> None:
    """Add every adapter to the weight that it adapts and remove it; parameters are whole, not sharded.

    Raises ValueError where the merged weight is not finite.
    """
    if not has_adapters(module):
        return
    from peft.tuners import lora

    for place, layer in [(n, m) for n, m in module.named_modules() if isinstance(m, lora.Linear)]:
        layer.merge(safe_merge=True)
        module.set_submodule(place, layer.get_base_layer())


def is_adapter(name: str) -> bool:
    """Whether a parameter's name is one that peft gives to an adapter."""
    return not {"lora_A", "lora_B"}.isdisjoint(name.split("."))


def dense_name(name: str) -> str | None:
    """Return a parameter's name before its layer was adapted; None for an adapter's own."""
    return None if is_adapter(name) else name.replace(".base_layer.", ".")


def fresh_adapter(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Return an adapter's initial value, as peft draws it: B zero, A uniform within 1 / sqrt(in)."""
    value = torch.zeros(shape)
    if "lora_A" in name.split("."):
        nn.init.kaiming_uniform_(value, a=math.sqrt(5), generator=generator)
    return value
