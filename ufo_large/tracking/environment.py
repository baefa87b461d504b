"""What a run ran on: versions, commit, hardware and command, saved before the first step."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import ufo_large
from ufo_large.config import read_json, without_credentials, write_json

FILE_NAME = "environment.json"
PACKAGES = (
    "torch",
    "torchvision",
    "deepspeed",
    "timm",
    "transformers",
    "torchjd",
    "webdataset",
    "pycocotools",
    "faster-coco-eval",
    "opencv-python-headless",
    "numpy",
    "scipy",
    "safetensors",
    "fairscale",
    "wandb",
)


def describe_environment() -> dict[str, Any]:
    """Return JSON values: versions, commit and dirty flag, hardware, command line, UTC start time.

    What cannot be found out (git not installed, a package missing) is None. No environment variable is
    recorded but WORLD_SIZE, since others may hold secrets.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.executable).name, *map(without_credentials, sys.argv)]),
        "world_size": int(os.environ.get("WORLD_SIZE", "1")),
        "commit": describe_commit(Path(ufo_large.__file__).resolve().parent),
        "versions": describe_versions(),
        "hardware": describe_hardware(),
    }


def save_environment(workdir: Path) -> Path:
    """Write `environment.json` into the run's folder; a resumed run keeps the earlier entries as a list."""
    path = Path(workdir) / FILE_NAME
    runs = read_environments(workdir) + [describe_environment()]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, runs)
    return path


def read_environments(workdir: Path) -> list[dict[str, Any]]:
    """Return the entries of `environment.json`, oldest first; empty if the file is missing."""
    path = Path(workdir) / FILE_NAME
    return read_json(path, "remove it; a resumed run begins a new one") if path.exists() else []


def describe_versions() -> dict[str, str | None]:
    """Return the version of Python, of this product and of each package that a result may depend on."""
    versions = {"python": platform.python_version(), "ufo_large": ufo_large.__version__}
    return versions | {name: _version_of(name) for name in PACKAGES}


def describe_commit(folder: Path) -> dict[str, Any]:
    """Return {"hash", "dirty"} of the git checkout that tracks `folder`; both None outside a checkout.

    The folder must itself be tracked: a copy installed inside somebody else's repository is not at
    that repository's commit.
    """
    tracked = _git(folder, "ls-files", "--error-unmatch", "__init__.py")
    commit = _git(folder, "rev-parse", "HEAD") if tracked else None
    status = _git(folder, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"hash": commit, "dirty": None if status is None else bool(status)}


def commit_text(commit: dict[str, Any]) -> str:
    """Return what `describe_commit` found in words, such as "1a2b3c4d5e and changes"."""
    if commit["hash"] is None:
        return "unknown (no git checkout)"
    return f"{commit['hash'][:10]}{' and changes' if commit['dirty'] else ''}"


def describe_hardware() -> dict[str, Any]:
    """Return host name, processor, cores this process may use, memory in GiB, and the visible GPUs."""
    cuda = torch.cuda.is_available()
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())] if cuda else []
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "gpus": [{"name": g.name, "memory_gib": round(g.total_memory / 2**30, 1)} for g in gpus],
        "cuda": torch.version.cuda if cuda else None,
    }


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
