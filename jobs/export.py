"""Merged model and GGUF files, as a Ray job:

ray job submit --working-dir . -- python jobs/export.py --config jobs/configs/demo.toml
"""

import sys

from deepred_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
