"""Fog and dusk for the synthetic world: the same scenes, labels and depth, seen worse.

Fog follows Koschmieder's law as Foggy Cityscapes does (arXiv:1708.07819, eqs. 1-3): what is d metres away
keeps exp(-beta d) of its own light, the rest is the light of the fog. At the visibility, in metres, 2 % of a
contrast is left: beta = ln 50 / visibility. Dusk takes photons away: their number per pixel is a Poisson
variable, and the camera's exposure brings back half of the lost stops.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np

KOSCHMIEDER = math.log(50)
FOG_RGB = (204.0, 208.0, 214.0)
PHOTONS = 1000.0  # of a white pixel in full daylight
FOG_SPREAD = 4.0
DARKEST = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Weather:
    """The worst that a world's pictures meet; every picture draws its own between this and better.

    `visibility`: metres, inf without fog; a picture's own is up to FOG_SPREAD times as far, uniform in the
    logarithm. `light`: share of daylight, DARKEST to 1; a picture's own is log-uniform up to 1.
    """

    visibility: float = math.inf
    light: float = 1.0

    def __post_init__(self):
        if not self.visibility > 0:
            raise ValueError(f"--visibility {self.visibility}: give metres above 0")
        if not DARKEST <= self.light <= 1:
            raise ValueError(f"--light {self.light}: give a share of daylight from {DARKEST:g} to 1")

    def marked(self) -> dict:
        """Return what a world's marker file says of its weather: nothing of what is clear."""
        foul = {name: value for name, value in asdict(self).items() if value != getattr(CLEAR, name)}
        return {"weather": foul} if foul else {}

    def seen(self, rgb_HW3: np.ndarray, depth_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return how a picture (float32, 0 to 255) looks; `depth_HW` in metres, 0 for the sky.

        `rng` is left as it is, so that clear and foul weather show the same scene.
        """
        own = rng.spawn(1)[0]
        clearer, darker = own.uniform(size=2)
        if math.isfinite(self.visibility):
            rgb_HW3 = fog(rgb_HW3, depth_HW, self.visibility * FOG_SPREAD**clearer)
        if self.light < 1:
            rgb_HW3 = dusk(rgb_HW3, self.light**darker, own)
        return rgb_HW3


CLEAR = Weather()


def fog(rgb_HW3: np.ndarray, depth_HW: np.ndarray, visibility: float) -> np.ndarray:
    """Veil a picture by its depth in metres, 0 = infinitely far; arXiv:1708.07819, eqs. 1-3."""
    far_HW = np.where(depth_HW > 0, depth_HW, np.inf)
    kept_HW1 = np.exp(-KOSCHMIEDER / visibility * far_HW)[..., None].astype(np.float32)
    return rgb_HW3 * kept_HW1 + np.float32(FOG_RGB) * (1 - kept_HW1)


def dusk(rgb_HW3: np.ndarray, light: float, rng: np.random.Generator) -> np.ndarray:
    """Darken a picture to a share of daylight and give it the shot noise of so few photons."""
    photons = PHOTONS * light / 255
    counts_HW3 = rng.poisson(np.clip(rgb_HW3, 0, 255) * photons)
    return (counts_HW3 / photons * math.sqrt(light)).astype(np.float32)
