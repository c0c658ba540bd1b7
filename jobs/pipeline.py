"""All stages, from books to a talking model, as a Ray job:

ray job submit --working-dir . -- python jobs/pipeline.py --config jobs/configs/demo.toml
"""

import sys

from deepred_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
