"""Routing schemes: task -> expert path. One file a scheme."""

from ufo_large.routing.base import ExpertBank, Route, Router

__all__ = ["ExpertBank", "Route", "Router"]
