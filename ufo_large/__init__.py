"""UFO-Large: one large vision transformer trained on many tasks at once.

Packages are layered; a package imports only from strictly lower layers (tests/unit/test_layers.py):

    L0 config structures    L1 losses metrics routing balancing    L2 tasks data    L3 models
    L4 distributed          L5 evaluation tracking planning                         L6 train
    L7 recipes testing
"""

__version__ = "0.1.0"
