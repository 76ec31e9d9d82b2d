"""Sphinx configuration of the documentation.

    sphinx-build -W -b html docs docs/_build/html

executes the notebooks; with `-D nb_execution_mode=off` their pages show code only.
"""

import sys
import tomllib
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

import mmfusion_jax  # noqa: E402

_PROJECT = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))["project"]

project = "mmfusion_jax"
author = "the authors of mmfusion_jax"
version = release = mmfusion_jax.__version__
html_title = f"mmfusion_jax {version}"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "repository_pages",
    "api_pages",
    "api_text",
    "paper_sections",
]
exclude_patterns = ["_build", "_ext", "_static", "jupyter_execute"]
nitpicky = True
# Names of other packages: their pages are not needed to build these.
nitpick_ignore_regex = [("py:.*", r"(?!mmfusion_jax\.).*")]

# Files of the repository that have pages of their own.
repository_url = _PROJECT["urls"]["Repository"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_attr_annotations = False
napoleon_custom_sections = [
    ("Reference", "notes_style"),
    ("Deviation", "notes_style"),
    "Example",
]
smartquotes = False
highlight_language = "none"
add_module_names = False
python_maximum_signature_line_length = 70
toc_object_entries_show_parents = "hide"

nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS / "_build" / ".jupyter_cache")
nb_execution_timeout = 900
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
# The widgets' JavaScript would be loaded from the network; no page has a widget.
nb_ipywidgets_js = {}

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "repository_url": repository_url,
    "use_repository_button": True,
    "use_download_button": False,
    "home_page_in_toc": False,
    "show_navbar_depth": 1,
    "show_toc_level": 1,
}
