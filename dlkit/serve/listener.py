"""The address of a server: a socket that listens there, and whether other machines can reach it."""

from __future__ import annotations

import errno
import ipaddress
import socket

from dlkit.errors import StorageError, UsageError

HOST, PORT = "127.0.0.1", 8000


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; opened before the model is loaded, which may take long.

    Raises:
        UsageError: no such address or port. StorageError: the port is in use or not permitted.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port {port}: a port is 1 to 65535, or 0 for any free port.")
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:  # UnicodeError: the host is not a valid name
        code = getattr(error, "errno", None)
        if code not in (errno.EADDRINUSE, errno.EACCES):
            raise UsageError(f"--host {host} is not an address of this machine. Remove it to use {HOST}.") from error
        reason = "is in use" if code == errno.EADDRINUSE else "is not permitted"
        raise StorageError(
            f"port {port} of {host} {reason}. Use another --port, or --port 0 for any free port."
        ) from error
    # asyncio sets this only on its own sockets: otherwise a body waits 40 ms until its header is acknowledged
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
