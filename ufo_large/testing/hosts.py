"""Two hosts on one Linux machine: each a network of its own and a name, a cable between them.

Network and UTS namespaces (`man 7 namespaces`). They need root and the command `ip` of iproute2.
"""

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ADDRESSES = ("192.0.2.1", "192.0.2.2")
"""Reserved for examples by RFC 5737."""
CABLE = "cable"
"""What the network's device is called on both."""
NEW_NETWORK, NEW_NAME = 0x40000000, 0x04000000
RENAMED = 'hostname "$0" && exec "$@"'


@dataclass(frozen=True, slots=True)
class Hosts:
    """What the two are called, here and for those that run on them."""

    names: tuple[str, str]

    def command(self, host: int, *words: str) -> list[str]:
        """Return the words that run `words` on a host; the process is then that of `words`."""
        name = self.names[host]
        return ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", RENAMED, name, *words]

    def enter(self, host: int) -> None:
        """Move the calling process, which must have one thread, to a host."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/run/netns", self.names[host]).open("rb") as network:
            if libc.setns(network.fileno(), NEW_NETWORK) or libc.unshare(NEW_NAME):
                raise OSError(ctypes.get_errno(), f"entering {self.names[host]}")
        socket.sethostname(self.names[host])

    def cut(self) -> None:
        """Pull the cable out: what is sent is lost, and no connection is told."""
        _ip("-n", self.names[0], "link", "set", CABLE, "down")

    def mend(self) -> None:
        _ip("-n", self.names[0], "link", "set", CABLE, "up")


@contextlib.contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Make two hosts that reach each other at ADDRESSES. RuntimeError where that cannot be done here."""
    if missing := [name for name in ("ip", "unshare", "hostname") if shutil.which(name) is None]:
        raise RuntimeError(f"no command {missing[0]}: no hosts can be made of network namespaces")
    names = (f"ufo-{os.getpid()}-a", f"ufo-{os.getpid()}-b")
    with contextlib.ExitStack() as made:
        for name in names:
            _ip("netns", "add", name)
            made.callback(_ip, "netns", "delete", name)
        _ip(*("link", "add", CABLE, "netns", names[0]), *("type", "veth", "peer", CABLE, "netns", names[1]))
        for name, address in zip(names, ADDRESSES, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", CABLE)
            for device in ("lo", CABLE):
                _ip("-n", name, "link", "set", device, "up")
        yield Hosts(names)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
