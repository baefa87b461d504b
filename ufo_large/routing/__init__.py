"""Routing schemes: task -> expert path. One file a scheme."""

from ufo_large.routing.base import ExpertBank, Route, Router
from ufo_large.routing.shared import SharedRouter
from ufo_large.routing.task import TaskRouter

ROUTERS: dict[str, type[Router]] = {
    "shared": SharedRouter,
    "task": TaskRouter,
}

__all__ = ["ROUTERS", "ExpertBank", "Route", "Router", "SharedRouter", "TaskRouter"]
