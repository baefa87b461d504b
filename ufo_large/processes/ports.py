"""Where the ranks of a machine meet: a port that nobody else listens at."""

import os
import socket
from collections.abc import Sequence

from ufo_large.processes.launcher import RUNNERS

FIXED_BY = ("--master_port", "--no_ssh")
"""Options that leave no choice: a port of the user's, or machines that must all name the same one."""


def free_port() -> int:
    """Return a port of this machine that nobody listens at now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def with_free_port(command: Sequence[str]) -> list[str]:
    """Return a `deepspeed` command with a free port, any other as it is; DeepSpeed's own choice is 29500."""
    words = list(command)
    at = next((n for n, word in enumerate(words, 1) if os.path.basename(word) in RUNNERS), None)
    if at is None or any(word.partition("=")[0] in FIXED_BY for word in words):
        return words
    return [*words[:at], "--master_port", str(free_port()), *words[at:]]
