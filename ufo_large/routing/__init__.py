"""Routing schemes: task -> expert path. One file a scheme."""

from ufo_large.routing.base import PARTS, ExpertBank, Part, Route, Router
from ufo_large.routing.learned import LearnedRouter
from ufo_large.routing.residual import ResidualRouter
from ufo_large.routing.shared import SharedRouter
from ufo_large.routing.task import TaskRouter
from ufo_large.routing.token_topk import TokenTopKRouter

ROUTERS: dict[str, type[Router]] = {
    "shared": SharedRouter,
    "task": TaskRouter,
    "learned": LearnedRouter,
    "token_topk": TokenTopKRouter,
    "residual": ResidualRouter,
}

__all__ = ["PARTS", "ROUTERS", "ExpertBank", "Part", "Route", "Router"]
