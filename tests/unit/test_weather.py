"""Fog and dusk of the synthetic world: the laws they follow, and that nothing but the light changes."""

import math

import numpy as np
import pytest

from ufo_large.data.scenes import render_close_up, render_street
from ufo_large.data.synthetic import write_world
from ufo_large.data.weather import CLEAR, FOG_RGB, PHOTONS, Weather, dusk, fog
from ufo_large.data.world_sizes import WorldSizes

FOUL = Weather(visibility=40, light=0.01)
TINY = WorldSizes(cls=(1, 0, 0), dec=(1, 0, 0), seg=(1, 0, 0), depth=(1, 0, 0))


def test_two_per_cent_of_a_contrast_is_left_at_the_visibility():
    """Koschmieder: black beside white at 0, 40 and 80 m of 40 m visibility."""
    black, white = (fog(np.full((1, 3, 3), v, np.float32), np.array([[1e-9, 40, 80]]), 40) for v in (0, 255))
    np.testing.assert_allclose((white - black)[0, :, 0], (255, 255 * 0.02, 255 * 0.0004), rtol=1e-4)


def test_the_sky_is_the_light_of_the_fog():
    sky = fog(np.zeros((2, 2, 3), np.float32), np.zeros((2, 2)), 1000)
    np.testing.assert_array_equal(sky, np.broadcast_to(np.float32(FOG_RGB), (2, 2, 3)))


@pytest.mark.parametrize("light", [1.0, 0.25, 0.01])
def test_dusk_has_the_mean_and_variance_of_photons(light):
    """Poisson: the variance of a count is its mean, n; the picture shows counts times a gain."""
    seen = dusk(np.full((400, 400, 3), 102, np.float32), light, np.random.default_rng(0)).astype(float)
    n = PHOTONS * light * 102 / 255
    assert seen.mean() == pytest.approx(102 * math.sqrt(light), rel=0.01)
    assert seen.var() / seen.mean() ** 2 == pytest.approx(1 / n, rel=0.02)


@pytest.mark.parametrize("paint", [render_street, lambda *a: render_close_up(*a[:2], 3, *a[2:])])
def test_weather_changes_the_light_alone(paint):
    for seed in range(5):
        clear, foul = (paint(96, 144, np.random.default_rng(seed), weather) for weather in (CLEAR, FOUL))
        assert (clear.rgb_HW3 != foul.rgb_HW3).mean() > 0.5
        np.testing.assert_array_equal(clear.classes_HW, foul.classes_HW)
        np.testing.assert_array_equal(clear.depth_HW, foul.depth_HW)
        assert clear.signs == foul.signs


def test_every_picture_has_its_own_weather_up_to_the_worst():
    grey, depth = np.full((64, 64, 3), 100, np.float32), np.full((64, 64), 40.0)
    rng = np.random.default_rng(0)
    veil = [Weather(visibility=40).seen(grey, depth, rng)[0, 0, 0] for _ in range(40)]
    kept = (np.array(veil) - FOG_RGB[0]) / (100 - FOG_RGB[0])
    assert 0.02 <= kept.min() < 0.05 and 0.25 < kept.max() <= 50**-0.25
    means = [Weather(light=0.01).seen(grey, depth, rng).mean() for _ in range(40)]
    assert 9.5 < min(means) < 15 and 70 < max(means) < 101


@pytest.mark.parametrize("weather", [FOUL, Weather(light=0.1)])
def test_a_foul_world_is_another_world(tmp_path, weather):
    write_world(tmp_path, 0, TINY, weather)
    write_world(tmp_path, 0, TINY, weather)
    told = f"holds the world .*'light': {weather.light}.* choose another --out"
    with pytest.raises(ValueError, match=told):
        write_world(tmp_path, 0, TINY)


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        ({"visibility": 0}, "--visibility 0: give metres above 0"),
        ({"visibility": math.nan}, "--visibility nan: give metres above 0"),
        ({"light": 0}, "--light 0: give a share of daylight"),
        ({"light": 1.5}, "--light 1.5: give a share of daylight"),
        ({"light": math.nan}, "--light nan: give a share of daylight"),
    ],
)
def test_bad_weather_says_what_to_give(values, remedy):
    with pytest.raises(ValueError, match=remedy):
        Weather(**values)
