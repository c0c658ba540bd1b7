"""A driver in a process of its own, to be killed: python driver.py RAY_ADDRESS CONFIG.json STAGE..."""

import sys
from functools import partial
from pathlib import Path

from scripted import ScriptedEngine

from deepred_ray.cluster import connect
from deepred_ray.config import Config, RayConfig
from deepred_ray.pipeline import run_stages
from deepred_ray.stages import synthesize

if __name__ == "__main__":
    address, config, *stages = sys.argv[1:]
    synthesize.run = partial(synthesize.run, make_engine=ScriptedEngine)
    connect(RayConfig(address=address))
    run_stages(Config.model_validate_json(Path(config).read_text()), stages, fresh=False)
