"""What the processor can do."""

from pathlib import Path


def processor_flags() -> set[str]:
    """Return what /proc/cpuinfo says of the first processor's instructions; nothing without that file."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    found = (line.partition(":")[2] for line in lines if line.lower().startswith(("flags", "features")))
    return set(next(found, "").split())
