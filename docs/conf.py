"""Sphinx: the pages of this directory as a site. `make docs` builds it; a warning is an error."""

from hc_signals import __version__

project = "hc_signals"
release = version = __version__
copyright = "the authors of hc_signals; Apache License 2.0"

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
exclude_patterns = ["screenshots.py"]

html_theme = "furo"
html_title = f"hc_signals {__version__}"
html_show_sphinx = False
html_copy_source = False
