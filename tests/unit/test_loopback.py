"""What listens on loopback and what does not, asked of the system: a store of torch.distributed, alone and at another address."""

import subprocess
import sys

import pytest

from deepred_ray.loopback import is_loopback

STORE = """
import socket, sys
from datetime import timedelta
import psutil
import torch.distributed as dist
from deepred_ray.loopback import keep_stores

if sys.argv[1] == "kept":
    keep_stores()
    keep_stores()  # as where two plugins call it
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1, timeout=timedelta(seconds=30))
one = __import__("torch").ones(1)
dist.all_reduce(one)
told = {c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == "LISTEN" and c.laddr.port == port}
print(one.item(), *told)
"""


def listening(kept: str) -> str:
    done = subprocess.run([sys.executable, "-c", STORE, kept], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_store_at_a_loopback_address_listens_there_only() -> None:
    assert listening("kept") == "1.0 127.0.0.1"


def test_torch_itself_listens_everywhere() -> None:
    """If it no longer does, `keep_stores` can go."""
    assert listening("as it is") == "1.0 ::"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.168.1.1", "localhost.example", "example.org"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)
