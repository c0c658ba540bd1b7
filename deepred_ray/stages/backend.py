"""How the workers of training find each other: as Ray Train has it, but at a port of loopback where all are on this machine."""

from typing import Any

from ray.train.torch import TorchConfig

from deepred_ray import loopback


class LoopbackTorch(TorchConfig):
    @property
    def backend_cls(self) -> Any:
        return LoopbackBackend


class LoopbackBackend(TorchConfig().backend_cls):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(loopback.keep_stores)
        super().on_start(worker_group, backend_config)
