"""Keep what Ray, torch and vLLM listen at on loopback, where one machine is all there is. By themselves they take any network's
connections, and who reaches some of those ports runs code."""

import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from importlib import import_module
from typing import Any

ADDRESS = "127.0.0.1"
ENVIRONMENT = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", "VLLM_HOST_IP": ADDRESS}
"""For processes that never talk to another machine's."""


def is_loopback(host: str) -> bool:
    """Whether a host, by name or number, is this machine and reached by no other."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def local_ray() -> Iterator[None]:
    """What Ray starts while the block lasts listens on loopback alone, and such a Ray can be connected to.

    Ray has this for systems on which it makes no clusters, as macOS; without it, even 127.0.0.1 as a node's address is replaced by
    the one that other machines reach.
    """
    from ray._private import ray_constants

    clusters = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters


def keep_stores() -> None:
    """In this process, let a store of torch.distributed whose address is loopback listen there; torch would listen everywhere.
    vLLM calls this as a plugin in each of its processes, training in each worker."""
    from torch.distributed import TCPStore

    # A function of that name hides the module.
    rendezvous: Any = import_module("torch.distributed.rendezvous")
    general = rendezvous._create_c10d_store
    if getattr(general, "on_loopback", False):
        return

    def create(hostname: str, port: int, rank: int, world_size: int, timeout: Any, use_libuv: bool = True) -> Any:
        if rank != 0 or not is_loopback(hostname):
            return general(hostname, port, rank, world_size, timeout, use_libuv)
        # The store takes the socket over, and closes it.
        descriptor = socket.create_server((hostname, port)).detach()
        return TCPStore(
            hostname, port, world_size, True, timeout, multi_tenant=True, master_listen_fd=descriptor, use_libuv=use_libuv
        )

    create.on_loopback = True  # type: ignore[attr-defined]
    rendezvous._create_c10d_store = create
