"""Sphinx reads this: `make docs`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "deepred_ray"
html_title = "deepred_ray"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_copyright = False
html_copy_source = False

extensions = ["myst_parser", "generated"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist", "fieldlist"]
myst_heading_anchors = 3
nitpicky = True
smartquotes = False  # they make one dash of the two before a flag
highlight_language = "console"
