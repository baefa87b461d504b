"""Put a routing scheme's expert banks into the blocks of a timm ViT, and find them there again."""

from collections.abc import Iterator, Mapping

from torch import nn

from ufo_large.routing import ExpertBank, Part, Router

_ATTRIBUTES: Mapping[Part, tuple[str, ...]] = {
    "mlp": ("mlp",),
    "attention": ("attn",),
    "norms": ("norm1", "norm2"),
}
"""timm's names for the parts of a block."""


def graft_banks(vit: nn.Module, router: Router, name: str) -> None:
    """Replace the parts that `router` routes by banks; ValueError where a block of `name` lacks one."""
    for index in router.blocks:
        block = vit.blocks[index]
        for part in router.config.parts:
            for attribute in _ATTRIBUTES[part]:
                if not isinstance(getattr(block, attribute, None), nn.Module):
                    raise ValueError(
                        f"trunk.name={name!r}: its {type(block).__name__} has no separate {attribute} to "
                        "route; leave the part out of router.parts, or use router=shared"
                    )
                place = f"blocks.{index}.{attribute}"
                setattr(block, attribute, router.bank(place, getattr(block, attribute)))


def banks_of(vit: nn.Module) -> dict[str, ExpertBank]:
    """Return the banks of a ViT by place, as `blocks.3.mlp`."""
    return {place: module for place, module in vit.named_modules() if isinstance(module, ExpertBank)}


def units_of(block: nn.Module) -> list[nn.Module]:
    """Return the modules of several layers that are used whole: the block, or the parts of a routed one."""
    if not any(isinstance(part, ExpertBank) for part in block.children()):
        return [block]
    parts = [
        unit
        for part in block.children()
        for unit in (part.units() if isinstance(part, ExpertBank) else [part])
    ]
    return [part for part in parts if _has_any(part.children()) and _has_any(part.parameters())]


def _has_any(items: Iterator) -> bool:
    return next(items, None) is not None
