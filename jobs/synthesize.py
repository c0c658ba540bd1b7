"""Examples from passages, as a Ray job:

ray job submit --working-dir . -- python jobs/synthesize.py --config jobs/configs/demo.toml
"""

import sys

from deepred_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["synthesize", *sys.argv[1:]]))
