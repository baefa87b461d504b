"""The DeepSpeed JSON is checked key by key."""

import json
from pathlib import Path

import pytest

from ufo_large.distributed import ds_config

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "ds_configs").glob("*.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_configs_pass(path):
    config = ds_config.read(path)
    assert path.stem.startswith(f"zero{config['zero_optimization']['stage']}_")
    assert ("bf16" in path.stem) == ("bf16" in config)
    assert ("offload" in path.stem) == ("offload_optimizer" in config["zero_optimization"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"zero_optimisation": {"stage": 3}}, "Did you mean 'zero_optimization'"),
        ({"zero_optimization": {"stage": 3, "overlap_com": True}}, "Did you mean 'overlap_comm'"),
        ({"zero_optimization": {"stage": 3}, "gradient_clipping": 1.0}, "optimizer.clip_norm"),
        ({"zero_optimization": {"stage": 4}}, "1, 2 or 3"),
        ({"zero_optimization": {"stage": 3, "zero_quantized_gradients": True}}, "not be exact"),
        ({"zero_optimization": {"stage": 3, "mics_shard_size": 2}}, "tasks are no longer apart"),
        ({"zero_optimization": {"stage": 3, "stage3_module_granularity_threshold": 9}}, "model itself"),
        ({"zero_optimization": {"stage": 1}, "sparse_gradients": True}, "has dropped it"),
        ({"zero_optimization": {"stage": 2}, "prescale_gradients": True}, "no gradient here needs scaling"),
        (
            {"zero_optimization": {"stage": 2}, "communication_data_type": "bf16"},
            "no effect in stages 1 and 2",
        ),
        ({"zero_optimization": {"stage": 3}, "data_types": {"grad_accum_dtype": "bf16"}}, "not be exact"),
        (
            {"zero_optimization": {"stage": 1}, "bf16": {}, "data_types": {"grad_accum_dtype": "fp32"}},
            "BF16_Optimizer",
        ),
    ],
)
def test_wrong_configs_name_the_remedy(config, message, tmp_path):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        ds_config.read(path)


def test_missing_file_names_the_nearest():
    with pytest.raises(ValueError, match=r"Did you mean 'zero3_fp32.json'"):
        ds_config.read(SHIPPED[0].parent / "zero3_fp3.json")


def test_broken_json_names_the_line(tmp_path):
    path = tmp_path / "ds.json"
    path.write_text('{\n "bf16": {,\n}')
    with pytest.raises(ValueError, match=r"ds.json: not JSON .*line 2"):
        ds_config.read(path)


def test_the_throughput_timer_which_waits_for_the_device_is_off_unless_asked_for():
    from deepspeed.utils.config import get_timers_config

    config = {"zero_optimization": {"stage": 3}}
    assert not get_timers_config(ds_config.complete(config, 1, None)).enabled
    asked = {**config, "timers": {"throughput": {"enabled": True}}}
    assert get_timers_config(ds_config.complete(asked, 1, None)).enabled
