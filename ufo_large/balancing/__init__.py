"""Balancing methods: one weight per task and step."""

from ufo_large.balancing.base import Balancer, Signals

__all__ = ["Balancer", "Signals"]
