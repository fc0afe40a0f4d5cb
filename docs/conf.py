"""How Sphinx builds these documents: ``make docs``, or ``sphinx-build -W docs docs/_build``. It needs no network."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The package of tables, and the scripts whose figures these are of: they hold the papers' figures.
sys.path[:0] = [str(HERE), str(HERE.parent / "benchmarks")]

import skood  # noqa: E402

project = "skood"
author = "The skood developers"
copyright = author
version = release = skood.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    # MathJax among the files of the documents: equations are shown where there is no network, too.
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "sphinx_design",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "result_tables",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates", "results/README.md"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
# Names in single backticks, as docstrings have them, are links where there is something to link to.
default_role = "py:obj"
rst_prolog = ".. py:currentmodule:: skood\n"
# Only commits change these documents, not the day they are built.
html_last_updated_fmt = None
html_theme = "pydata_sphinx_theme"
html_title = "skood"
html_theme_options = {
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_nav_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
}
# These pages have nothing beside them in the first sidebar.
html_sidebars = {page: [] for page in ("index", "installing", "changelog", "citing")}
html_show_sourcelink = False
# The button copies the code, without prompts and results.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
html_static_path = ["_static"]
html_css_files = ["skood.css"]

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_inherit_docstrings = False
autodoc_default_options = {"inherited-members": "BaseEstimator,Module,NeuralNet,Dataset,tuple"}
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "auto_examples",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    # What is printed is shown, not what an expression comes to.
    "capture_repr": (),
    "download_all_examples": False,
    "show_memory": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
}


def skip_others(app, what, name, obj, skip, options):
    """Leave out what scikit-learn, torch and skorch give, and document: their texts have links into their own pages."""
    module = getattr(obj, "__module__", None) or ""
    others = module.partition(".")[0] in ("sklearn", "skorch", "torch")
    return True if others or re.fullmatch(r"set_\w+_request", name) else None


def as_markup(app, what, name, obj, options, lines):
    """Make reStructuredText of a docstring, which is written to be read as it stands.

    Equations, the indented paragraphs before the first section, are set as they are; elsewhere what stands for itself
    outside of backticks, as in "(n, *in_shape)", "shape (n_samples, latent_dim_)" and "|z|", is not taken for markup.
    """
    text, section = [], None
    for number, line in enumerate(lines):
        if number + 1 < len(lines) and line.strip() and re.fullmatch(r"\s*-{3,}\s*", lines[number + 1]):
            section = line.strip()
        equation = section is None and line.startswith("    ")
        if equation and not lines[number - 1].strip():
            before = next((one for one in reversed(text) if one.strip()), "")
            if not before.startswith(" "):
                text += ["::", ""]
        text.append(line if equation or section == "Examples" else escaped(line))
    lines[:] = text


def escaped(line):
    # The name in front of a colon is numpydoc's affair.
    head, colon, tail = line.partition(" : ") if re.match(r"\s*[\w, ]+ : ", line) else ("", "", line)
    parts = re.split(r"(``.*?``|`[^`]*`)", tail)
    parts[::2] = [re.sub(r"(?<=\w)_(?!\w)|\||(?<=, )\*(?=\w)", r"\\\g<0>", part) for part in parts[::2]]
    return head + colon + "".join(parts)


def link_examples(app, docname, source):
    """Have links to the scripts in ``examples`` lead to their pages in the gallery."""
    source[0] = re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](auto_examples/\1.rst)", source[0])


def setup(app):
    app.connect("autodoc-skip-member", skip_others)
    # Before numpydoc, which comes at 500.
    app.connect("autodoc-process-docstring", as_markup, priority=400)
    app.connect("source-read", link_examples)
