"""Draw docs/weather.jpg: scenes of the synthetic world in clear weather, in fog, at dusk and in both.

python docs/draw_weather.py
"""

import argparse
from pathlib import Path

import numpy as np

from ufo_large.data.scenes import render_close_up, render_street
from ufo_large.data.weather import Weather
from ufo_large.media.pictures import encode_jpeg

OUT = Path(__file__).parent / "weather.jpg"
ROWS = (Weather(), Weather(visibility=40), Weather(light=0.01), Weather(visibility=40, light=0.001))
SIZE = (132, 198)
STREETS, CARS = (1, 3, 4, 7), (0, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="the picture (%(default)s)")
    out = parser.parse_args().out
    rows = []
    for weather in ROWS:
        scenes = [render_street(*SIZE, np.random.default_rng(seed), weather) for seed in STREETS]
        scenes += [render_close_up(*SIZE, label, np.random.default_rng(label), weather) for label in CARS]
        rows.append(np.hstack([scene.rgb_HW3 for scene in scenes]))
    out.write_bytes(encode_jpeg(np.vstack(rows), 80))
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
