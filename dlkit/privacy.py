"""What leaves the machine: no telemetry of any dependency, and with DLKIT_OFFLINE=1 no connection at all.

`import dlkit` applies it, before any dependency is imported: most of them read these variables only then.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from dlkit.errors import StorageError

NO_TELEMETRY = {
    "DO_NOT_TRACK": "true",
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime >= 1.29 else writes a device id below ~/.cache when it is imported
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "WANDB_ERROR_REPORTING": "false",
}
CACHES = {  # what libraries would keep below /tmp and ~/.cache; here below dlkit's own cache
    "TORCHINDUCTOR_CACHE_DIR": "compiled/inductor",
    "TRITON_CACHE_DIR": "compiled/triton",
    "WANDB_CACHE_DIR": "wandb/cache",
    "WANDB_DATA_DIR": "wandb/data",
}
CONNECTIONS = {  # audit event: index of the address among its arguments
    "socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0,
}  # fmt: skip


def offline() -> bool:
    """Whether DLKIT_OFFLINE forbids the network."""
    return os.environ.get("DLKIT_OFFLINE", "") not in ("", "0")


def apply() -> None:
    """Disable all telemetry, whatever the environment says, and refuse connections if DLKIT_OFFLINE is set."""
    os.environ.update(NO_TELEMETRY)
    if offline():
        os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"})
        sys.addaudithook(_refuse_connection)


def use_cache_folders() -> None:
    """Let libraries keep their files in dlkit's cache, unless their own variables name another folder."""
    from dlkit.cache import home

    # precompiled C++ headers are kept below /tmp whatever the cache folder is
    os.environ.setdefault("TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS", "0")
    for variable, folder in CACHES.items():
        os.environ.setdefault(variable, str(home() / folder))


def _refuse_connection(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook; dlkit's own code asks `offline()` before, so only a dependency gets as far as this."""
    if event not in CONNECTIONS or not offline():
        return
    address = arguments[CONNECTIONS[event]]
    if event in ("socket.connect", "socket.sendto"):
        if not isinstance(address, tuple):  # a Unix socket's path
            return
        address = address[0]
    host = address.decode(errors="replace") if isinstance(address, bytes) else str(address or "")
    if not _is_local(host):
        raise StorageError(f"no connection to {host}: DLKIT_OFFLINE forbids the network. Unset it to allow this.")


def _is_local(host: str) -> bool:
    import ipaddress
    import socket

    try:
        address = ipaddress.ip_address(host.partition("%")[0])
        return address.is_loopback or address.is_unspecified
    except ValueError:
        return host in ("", "localhost", socket.gethostname())
