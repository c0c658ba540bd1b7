import sys

from deepred_ray.cli import main

sys.exit(main())
