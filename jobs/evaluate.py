"""Base and tuned model on the evaluation prompts, as a Ray job:

ray job submit --working-dir . -- python jobs/evaluate.py --config jobs/configs/demo.toml
"""

import sys

from deepred_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
