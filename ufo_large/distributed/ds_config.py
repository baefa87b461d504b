"""The DeepSpeed JSON: where bytes live, in which dtype and how they travel; nothing else.

DeepSpeed accepts a misspelt top-level key in silence, so every key is checked here against a list.
"""

from pathlib import Path
from typing import Any

from ufo_large.config import Problems, did_you_mean, read_json

FROM_THE_RECIPE = {
    "train_batch_size": "tasks.<task>.loader.micro_batch",
    "train_micro_batch_size_per_gpu": "tasks.<task>.loader.micro_batch",
    "gradient_accumulation_steps": "tasks.<task>.micro_batches",
    "gradient_clipping": "optimizer.clip_norm",
    "optimizer": "optimizer",
    "scheduler": "schedule",
    "steps_per_print": "log_every",
    "managed_gradient_accumulation": "(set by the engine)",
    "wandb": "tracking",
    "tensorboard": "tracking",
    "csv_monitor": "tracking",
    "activation_checkpointing": "model.trunk.checkpointing",
}
ALLOWED = {
    "zero_optimization",
    "bf16",
    "data_types",
    "communication_data_type",
    "aio",
    "comms_logger",
    "wall_clock_breakdown",
    "memory_breakdown",
    "dump_state",
    "seq_parallel_communication_data_type",
    "timers",
}
REFUSED = {
    "prescale_gradients": "no gradient here needs scaling: bf16 reaches as far as float32",
    "gradient_predivide_factor": "no gradient here needs scaling: bf16 reaches as far as float32",
    "sparse_gradients": "this DeepSpeed has dropped it",
}
REFUSED_ZERO = {
    "zero_quantized_gradients": "it rounds gradients, so task gradients would not be exact",
    "stage3_module_granularity_threshold": "the model itself says what is gathered as one",
}
ALLOWED_ZERO = {
    "stage",
    "contiguous_gradients",
    "reduce_scatter",
    "reduce_bucket_size",
    "allgather_partitions",
    "allgather_bucket_size",
    "overlap_comm",
    "round_robin_gradients",
    "offload_param",
    "offload_optimizer",
    "sub_group_size",
    "stage3_prefetch_bucket_size",
    "stage3_param_persistence_threshold",
    "stage3_model_persistence_threshold",
    "stage3_max_live_parameters",
    "stage3_max_reuse_distance",
    "stage3_use_all_reduce_for_fetch_params",
    "stage3_gather_16bit_weights_on_model_save",
    "zero_hpz_partition_size",
    "zero_quantized_weights",
    "zero_quantized_nontrainable_weights",
    "memory_efficient_linear",
    "load_from_fp32_weights",
    "use_multi_rank_bucket_allreduce",
}


def read_named(name: str, folder: Path) -> dict[str, Any] | None:
    """Read a DeepSpeed JSON by its path or its name in `folder`; None for `none`. Raises as `read`."""
    if name == "none":
        return None
    return read(name if name.endswith(".json") else folder / f"{name}.json")


def read(path: str | Path) -> dict[str, Any]:
    """Read and check a DeepSpeed JSON. Raises ValueError that lists every problem with its remedy."""
    path = Path(path)
    if not path.exists():
        known = sorted(p.name for p in path.parent.glob("*.json")) if path.parent.exists() else []
        raise ValueError(f"{path}: no such DeepSpeed config.{did_you_mean(path.name, known)}")
    config = read_json(path, "correct it")
    if not isinstance(config, dict):
        raise ValueError(f"{path}: {str(config)[:40]} is no JSON object; write one with DeepSpeed's keys")
    check(config, str(path))
    return config


def check(config: dict[str, Any], source: str) -> None:
    """Raise ValueError for unknown keys, keys of the recipe, and modes that cannot be trained exactly."""
    problems = Problems(source)
    for key in config:
        if key in FROM_THE_RECIPE:
            problems.add(f"{key!r} belongs to the recipe: set {FROM_THE_RECIPE[key]} there and drop it here")
        elif key in REFUSED:
            problems.add(f"{key!r}: {REFUSED[key]}; drop it")
        elif key not in ALLOWED:
            problems.add(f"unknown key {key!r}.{did_you_mean(key, ALLOWED)}")
    zero = config.get("zero_optimization")
    if not isinstance(zero, dict) or zero.get("stage") not in (1, 2, 3):
        problems.add(
            "'zero_optimization' needs 'stage': 1, 2 or 3; for one process without ZeRO use --ds none"
        )
        zero = {}
    for key in zero:
        if key.startswith("mics_"):
            problems.add(
                f"{key!r}: MiCS merges the gradients of its groups once a step, when the tasks are no longer "
                "apart, and this DeepSpeed has dropped it; use stage 3 with 'zero_hpz_partition_size'"
            )
        elif key in REFUSED_ZERO:
            problems.add(f"'zero_optimization.{key}': {REFUSED_ZERO[key]}; drop it")
        elif key not in ALLOWED_ZERO:
            problems.add(f"unknown key 'zero_optimization.{key}'.{did_you_mean(key, ALLOWED_ZERO)}")
    if "communication_data_type" in config and zero.get("stage") in (1, 2):
        problems.add(
            "'communication_data_type' has no effect in stages 1 and 2, where task gradients travel in fp32; "
            "drop it or use stage 3"
        )
    _check_accumulation(config, zero, problems)
    problems.raise_if_any()


def _check_accumulation(config: dict[str, Any], zero: dict[str, Any], problems: Problems) -> None:
    accumulated = config.get("data_types", {}).get("grad_accum_dtype")
    if accumulated not in (None, "fp32"):
        problems.add(
            f"'data_types.grad_accum_dtype' {accumulated!r} rounds each sum of micro-batches, so task "
            "gradients would not be exact; drop it (they accumulate in fp32)"
        )
    elif accumulated and zero.get("stage") == 1 and "bf16" in config:
        problems.add(
            "stage 1 with bf16 selects DeepSpeed's BF16_Optimizer, which hides the gradients; drop "
            "'data_types' (micro-batches accumulate in fp32 all the same) or use stage 2 or 3"
        )


def complete(config: dict[str, Any], micro_batch: int, clip_norm: float | None) -> dict[str, Any]:
    """Return the config DeepSpeed gets: the user's plus what the recipe decides.

    Stage 3 under bf16 accumulates in fp32. DeepSpeed's throughput timer, which waits for the device before
    every forward pass, is off unless the config asks for it.
    """
    completed = {
        "timers": {"throughput": {"enabled": False}},
        **config,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": clip_norm or 0.0,
        "steps_per_print": 10**9,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    if "bf16" in config and config["zero_optimization"]["stage"] == 3:
        completed["data_types"] = {"grad_accum_dtype": "fp32", **config.get("data_types", {})}
    return completed
