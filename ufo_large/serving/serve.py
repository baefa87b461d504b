"""Open a model and serve it until Ctrl-C: what `launchers/serve.py` does."""

import importlib
import logging
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ufo_large.serving.limits import Limits
from ufo_large.serving.predictor import UFO
from ufo_large.serving.samples import read_samples

if TYPE_CHECKING:
    import uvicorn

PACKAGES = ("fastapi", "uvicorn", "python_multipart")
END_S = 5
"""How long requests that are being answered hold up the end."""


def serve(open_model: Callable[[], UFO], host: str, port: int, limits: Limits) -> None:
    """Serve the model on an address; port 0 takes a free one. Prints the address when it answers.

    Raises ValueError where a package is missing, the address cannot be had, or `open_model` says so.
    """
    require_packages()
    with bound(host, port) as listening:
        server = make_server(open_model(), host, limits)
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{listening.getsockname()[1]}/  (Ctrl-C ends it)", flush=True)
        server.run(sockets=[listening])


def make_server(model: UFO, host: str, limits: Limits) -> "uvicorn.Server":
    """Return a server that is not started; warns where others than this machine will reach it."""
    import uvicorn

    from ufo_large.serving.guard import is_loopback
    from ufo_large.serving.server import make_app

    local = is_loopback(host)
    if not local:
        told = "whoever reaches this port may predict; there is no password and no encryption"
        print(f"warning: --host {host}: {told}", file=sys.stderr)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # the client is told what is damaged
    found = read_samples(model.saved, model.folder)
    samples = [sample for sample in found if len(sample.data) < limits.max_bytes]
    app = make_app(model, limits, samples, local)
    options = {"log_level": "warning", "server_header": False, "timeout_graceful_shutdown": END_S}
    return uvicorn.Server(uvicorn.Config(app, **options))


def require_packages() -> None:
    """Raise ValueError where a package of the server is missing."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(f"the server needs a package ({error}): pip install ufo_large[serve]") from None


def bound(host: str, port: int) -> socket.socket:
    """Return a socket on the address. Raises ValueError where it cannot be had."""
    taken = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
    except (OSError, OverflowError, UnicodeError) as error:
        taken.close()
        told = "give a free --port (0 finds one) and a --host of this machine"
        raise ValueError(f"cannot listen on {host} port {port} ({error}); {told}") from None
    return taken
