"""Chunks of the books, scored by the theme's lexicon, as a Ray job:

ray job submit --working-dir . -- python jobs/corpus.py --config jobs/configs/demo.toml
"""

import sys

from deepred_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["corpus", *sys.argv[1:]]))
