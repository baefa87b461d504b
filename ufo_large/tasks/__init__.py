"""One file a task head."""

from ufo_large.tasks.base import TaskHead

__all__ = ["TaskHead"]
