"""Notice numbers that are none without waiting for the device, and without one rank going its own way.

A head that raised would leave the other ranks in a collective, and asking the device after each micro-batch
would stop it each time. So a head notes what is not finite, makes its losses NaN and goes on; the training
step sees that once, in the numbers that it reduces anyway, and refuses on all ranks together.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


class FiniteWatch:
    """What one head saw that was not finite, in the pass under way and ever."""

    def __init__(self) -> None:
        self._pass: dict[str, Tensor] = {}
        self._ever: dict[str, Tensor] = {}

    def note(self, tensors: Mapping[str, Tensor]) -> None:
        """Remember, on the device, whether these are finite."""
        for name, tensor in tensors.items():
            self._pass[name] = tensor.detach().isfinite().all()

    def cleaned(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Note `tensors` and return them with zeros in place of NaN and infinity.

        A matcher compares NaN as "no match" in silence or raises, so what it reads goes through here.
        """
        self.note(tensors)
        return {name: torch.nan_to_num(t, nan=0.0, posinf=0.0, neginf=0.0) for name, t in tensors.items()}

    def losses(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Note scalar losses and return them, all NaN if anything noted in this pass was not finite."""
        self.note(losses)
        fine = torch.stack(list(self._pass.values())).all()
        for name, flag in self._pass.items():
            self._ever[name] = self._ever[name] & flag if name in self._ever else flag
        self._pass = {}
        return {name: torch.where(fine, loss, torch.nan) for name, loss in losses.items()}

    def not_finite(self) -> list[str]:
        """Return the names of what was ever not finite. Waits for the device."""
        return [name for name, fine in self._ever.items() if not fine]

    def forget(self) -> None:
        """Drop what was seen before this."""
        self._ever = {}
