"""The dense control: one network for all tasks."""

from dataclasses import dataclass

from torch import nn

from ufo_large.routing.base import ExpertBank, Route, Router


class SharedRouter(Router):
    """Leave every block as it is."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Router.Config):
        def __post_init__(self):
            if self.blocks is not None or self.parts != ("mlp",) or self.expert_rate != 1:
                raise ValueError(
                    f"router.blocks={self.blocks}, router.parts={self.parts} and router.expert_rate="
                    f"{self.expert_rate} have no effect: the scheme `shared` routes no block"
                )

        def build(self, tasks: tuple[str, ...], route: Route, depth: int) -> "SharedRouter":
            return SharedRouter(self, (), tasks, route)

    def bank(self, place: str, module: nn.Module) -> ExpertBank:
        raise AssertionError("no block is routed")
