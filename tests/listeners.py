"""Who listens where, asked of the system all the time that a command runs."""

import contextlib
import ipaddress
import subprocess
from collections.abc import Sequence
from typing import Any, NamedTuple

import psutil

EVERY_S = 0.5


class Listener(NamedTuple):
    process: str
    address: str

    @property
    def exposed(self) -> bool:
        address = ipaddress.ip_address(self.address)
        return not (getattr(address, "ipv4_mapped", None) or address).is_loopback


def listeners(root: psutil.Process) -> set[Listener]:
    """TCP sockets that a process and its descendants listen at now."""
    found = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                name = process.name()
                found |= {Listener(name, c.laddr.ip) for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    return found


def run_watched(command: Sequence[str], **options: Any) -> tuple[subprocess.CompletedProcess[str], set[Listener]]:
    """The finished command, with its output, and everyone who listened meanwhile."""
    found: set[Listener] = set()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as running:
        process = psutil.Process(running.pid)
        while True:
            try:
                stdout, stderr = running.communicate(timeout=EVERY_S)
                break
            except subprocess.TimeoutExpired:
                found |= listeners(process)
    return subprocess.CompletedProcess(command, running.returncode, stdout, stderr), found
