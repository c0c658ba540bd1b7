"""Each node of the cluster looked at, as a Ray job:

ray job submit --working-dir . -- python jobs/doctor.py --config jobs/configs/demo.toml
"""

import sys

from deepred_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["doctor", "--address", "auto", *sys.argv[1:]]))
