"""Describes what the child process of the grader reasoning_gym may do. Imported in such a child alone."""

import socket
from pathlib import Path

import rlt_data.tasks.grading.reasoning_gym.child  # noqa: F401  (it gives up rights)


def describe(request):
    """Return whether this process left the network, its interfaces, and whether it can connect and write.

    `request` is a path to write to, and the network namespace of the parent.
    """
    path, network = request
    return {
        "left": str(Path("/proc/self/ns/net").readlink()) != network,
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
        "connected": can_connect(),
        "written": can_write(path),
    }


def can_connect():
    """Return whether a datagram can be sent to another machine (a documentation address: nobody is there)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        try:
            connection.connect(("192.0.2.1", 9))
        except OSError:
            return False
        return True


def can_write(path):
    """Return whether one byte can be written to a file."""
    try:
        with Path(path).open("wb") as stream:
            stream.write(b"x")
    except OSError:
        return False
    return True
