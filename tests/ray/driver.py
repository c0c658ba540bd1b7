"""The `deepred` command with the scripted engine, in a process of its own, to be killed: python driver.py COMMAND..."""

import sys
from functools import partial

from scripted import ScriptedEngine, ScriptedMaker

from deepred_ray import cli
from deepred_ray.stages import asking, synthesize

if __name__ == "__main__":
    synthesize.run = partial(synthesize.run, make_engine=ScriptedEngine)
    asking.EngineMaker = ScriptedMaker
    sys.exit(cli.main(sys.argv[1:]))
