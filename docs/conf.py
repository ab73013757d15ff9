"""Sphinx: the pages of this directory as a site. `make docs` builds it; a warning is an error."""

import django
from django.conf import settings
from sphinx.search import languages
from sphinx.search.en import SearchEnglish

from hc_signals import __version__

# The page of the API is made from the docstrings: its modules are imported.
settings.configure(
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.postgres",
        "pgtrigger",
        "hc_signals",
    ]
)
django.setup()

project = "hc_signals"
release = version = __version__
copyright = "the authors of hc_signals; Apache License 2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "sphinx_design"]
copybutton_selector = "div.highlight-python pre, div.highlight-sh pre, div.highlight-sql pre"  # not on outputs
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
nitpick_ignore_regex = [
    ("py:(class|exc)", r"(?!hc_signals\.).*"),
    (
        "py:class",
        r"hc_signals\..*\.(M(_co)?|\w+Task|DramatiqActor|Filters|FieldOptions|RelationOptions)",
    ),
]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["screenshots.py"]

html_theme = "furo"
html_title = f"hc_signals {__version__}"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]


class SearchParts(SearchEnglish):
    """Finds RETRY_SECONDS by "retry" as well: a name is indexed whole and by its parts."""

    def split(self, input):
        """Return the words of a text."""
        words = super().split(input)
        return words + [part for word in words if "_" in word.strip("_") for part in word.split("_") if part]


languages["en"] = SearchParts


def keep_sentences(app, what, *arguments):
    """Begin with an empty comment: napoleon would take an attribute's first words, up to a colon, for its type."""
    if what in ("attribute", "data", "property"):
        arguments[-1][:0] = ["..", ""]


def keep_general_signature(app, domain, objtype, content):
    """Show the last overload of a class, which takes all arguments; the others are for type checkers."""
    *special, general = [each for each in content.parent.children if each is not content]
    for each in special if objtype == "class" else ():
        general["ids"] += each["ids"]
        content.parent.remove(each)


def setup(app):
    """Connect the functions above. ``keep_sentences`` runs before napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", keep_sentences, priority=400)
    app.connect("object-description-transform", keep_general_signature)
