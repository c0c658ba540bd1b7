"""Books from a mirror or from local files, as a Ray job:

ray job submit --working-dir . -- python jobs/acquire.py --config jobs/configs/demo.toml
"""

import sys

from deepred_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["acquire", *sys.argv[1:]]))
