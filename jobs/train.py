"""LoRA fine-tuning on the examples, as a Ray job:

ray job submit --working-dir . -- python jobs/train.py --config jobs/configs/demo.toml
"""

import sys

from deepred_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
