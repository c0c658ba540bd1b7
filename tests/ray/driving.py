"""Drivers in processes of their own, which tests kill."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deepred_ray.config import Config
from deepred_ray.runs import Run

DRIVER = Path(__file__).with_name("driver.py")
TAKES_S = 180

Driver = subprocess.Popen[bytes]


def command(config: Config, address: str | None, stage: str) -> list[str]:
    """What a user would type for a run of these settings, which are noted in its folder."""
    settings = config.model_dump(mode="json") | {"ray": {"address": address, "cpus": 2}}
    (Run(config.root, config.run).folder / "config.json").write_json(settings)
    return [sys.executable, str(DRIVER), stage, "--run", config.run, "--data-root", config.root]


@contextlib.contextmanager
def driving(address: str, config: Config, folder: Path, stage: str) -> Iterator[Driver]:
    """A driver whose words go to `folder`/driver.log; killed at the end, as is whatever it left running in Ray."""
    with (folder / "driver.log").open("wb") as log:
        driver = subprocess.Popen(command(config, address, stage), stdout=log, stderr=log)
    try:
        yield driver
    finally:
        driver.kill()
        driver.wait()


def wait_until(done: Callable[[], Any], driver: Driver, log: Path) -> None:
    deadline = time.monotonic() + TAKES_S
    while not done():
        assert driver.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
