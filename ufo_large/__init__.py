"""UFO-Large: one large vision transformer trained on many tasks at once.

Packages are layered; a package imports only from strictly lower layers (tests/unit/test_layers.py):

    L0 config structures processes    L1 losses metrics routing balancing    L2 tasks data    L3 models
    L4 distributed          L5 tracking, then runs, then evaluation planning        L6 train serving
    L7 recipes testing
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ufo_large.serving.predictor import UFO

__all__ = ["UFO"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is asked for: PEP 562."""
    if name == "UFO":
        from ufo_large.serving.predictor import UFO

        return UFO
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
