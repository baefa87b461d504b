"""Balancing methods: one weight per task and step.

`METHODS` maps the name that a recipe writes to its class; `method(name)` looks one up and knows misspellings.
"""

from ufo_large.balancing.aligned_mtl import AlignedMTL
from ufo_large.balancing.autoscale import Autoscale
from ufo_large.balancing.base import Balancer, Signals
from ufo_large.balancing.cagrad import CAGrad
from ufo_large.balancing.conflictfree import ConFIG
from ufo_large.balancing.db_mtl import DBMTL
from ufo_large.balancing.dwa import DWA
from ufo_large.balancing.fairgrad import FairGrad
from ufo_large.balancing.famo import FAMO
from ufo_large.balancing.fixed import Fixed
from ufo_large.balancing.go4align import GO4Align
from ufo_large.balancing.gradnorm import GradNorm
from ufo_large.balancing.gradvac import GradVac
from ufo_large.balancing.imtl_g import IMTLG
from ufo_large.balancing.imtl_l import IMTLL
from ufo_large.balancing.mgda import MGDA
from ufo_large.balancing.nash_mtl import NashMTL
from ufo_large.balancing.ntkmtl import NTKMTL
from ufo_large.balancing.pcgrad import PCGrad
from ufo_large.balancing.rlw import RLW
from ufo_large.balancing.stch import STCH
from ufo_large.balancing.tbgc import TBGC
from ufo_large.balancing.tbgn import TBGN
from ufo_large.balancing.uncertainty import Uncertainty
from ufo_large.balancing.upgrad import UPGrad
from ufo_large.config import did_you_mean

METHODS: dict[str, type[Balancer]] = {
    "tbgn": TBGN,
    "fixed": Fixed,
    "uncertainty": Uncertainty,
    "dwa": DWA,
    "rlw": RLW,
    "famo": FAMO,
    "stch": STCH,
    "imtl_l": IMTLL,
    "go4align": GO4Align,
    "gradnorm": GradNorm,
    "tbgc": TBGC,
    "ntkmtl": NTKMTL,
    "db_mtl": DBMTL,
    "autoscale": Autoscale,
    "mgda": MGDA,
    "pcgrad": PCGrad,
    "gradvac": GradVac,
    "cagrad": CAGrad,
    "imtl_g": IMTLG,
    "conflictfree": ConFIG,
    "nash_mtl": NashMTL,
    "fairgrad": FairGrad,
    "aligned_mtl": AlignedMTL,
    "upgrad": UPGrad,
}


def method(name: str) -> type[Balancer]:
    """Return the method called `name`; ValueError lists the known ones."""
    if name not in METHODS:
        raise ValueError(f"unknown balancing method {name!r}.{did_you_mean(name, METHODS)}")
    return METHODS[name]


__all__ = ["METHODS", "Balancer", "Signals", "method"]
