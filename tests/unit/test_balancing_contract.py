"""Every balancing method keeps the contract, in its default and in its unusual settings."""

import dataclasses

import pytest

from ufo_large.balancing import METHODS
from ufo_large.config import from_dict, to_dict
from ufo_large.testing.balancing import TASKS, check_balancer, check_finite, nasty_signals

VARIANTS = {
    "tbgn shares": METHODS["tbgn"].Config(shares={"det": 2.0}, floor=0.0, momentum=0.0),
    "fixed weights": METHODS["fixed"].Config(by_task={"det": 0.25}),
    "go4align one group": METHODS["go4align"].Config(num_groups=1),
    "go4align four groups": METHODS["go4align"].Config(num_groups=4, step_size=0.1),
    "gradvac quick": METHODS["gradvac"].Config(beta=1.0),
    "cagrad strong": METHODS["cagrad"].Config(c=0.9),
    "fairgrad near summing": METHODS["fairgrad"].Config(alpha=0.5),
    "fairgrad shares": METHODS["fairgrad"].Config(shares={"det": 2.0}),
    "stch sharp": METHODS["stch"].Config(mu=0.01, warmup_steps=2),
    "dwa short": METHODS["dwa"].Config(window=1, temperature=0.1),
    "db_mtl unsmoothed": METHODS["db_mtl"].Config(beta=0.0),
    "autoscale short": METHODS["autoscale"].Config(skip_steps=1, measure_steps=2),
}


@pytest.mark.parametrize("name", METHODS)
def test_method_keeps_the_contract(name):
    check_balancer(METHODS[name].Config(), common_scale=name not in ("rlw", "tbgc"))


@pytest.mark.parametrize("name", [n for n in VARIANTS if n != "fixed weights"])
def test_variant_keeps_the_contract(name):
    config = VARIANTS[name]
    if "det" in getattr(config, "shares", {}):
        check_finite(config)
    else:
        check_balancer(config)


@pytest.mark.parametrize("name", METHODS)
def test_weights_between_measurements_are_the_last_ones(name):
    config = dataclasses.replace(METHODS[name].Config(), every_k_steps=4)
    balancer = config.build(TASKS, 0)
    given = [dataclasses.replace(s, step=i) for i, (_, s) in enumerate(nasty_signals())]
    for first in (0, 4):
        measured = balancer(given[first]).tolist()
        for step in range(first + 1, first + 4):
            assert not balancer.needs_measurement(step, TASKS)
            assert balancer(dataclasses.replace(given[step], gram_MM=None)).tolist() == measured


@pytest.mark.parametrize("name", METHODS)
def test_every_config_survives_saving(name):
    config = dataclasses.replace(METHODS[name].Config(), every_k_steps=3, scale_private=True)
    assert from_dict(type(config), to_dict(config)) == config


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_survives_saving(name):
    assert from_dict(type(VARIANTS[name]), to_dict(VARIANTS[name])) == VARIANTS[name]


@pytest.mark.parametrize("name", METHODS)
def test_needs_gram_tells_the_truth(name):
    """A method that says it does not read the Gram matrix works without; one that does refuses."""
    balancer = METHODS[name].Config().build(TASKS, 0)
    _, given = next(nasty_signals())
    without = dataclasses.replace(given, gram_MM=None)
    if balancer.needs_gram:
        with pytest.raises(ValueError, match="needs the Gram matrix"):
            balancer(without)
    else:
        assert balancer(without).shape == (4,)
