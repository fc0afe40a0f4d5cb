"""Imports go one way: a module of skood imports from its own layer and from lower ones."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import skood

SOURCE = Path(skood.__file__).parent

# From the lowest to the highest. A package stands for all of its modules.
LAYERS = (
    (
        "_image_folder",
        "_imagenet",
        "_npz",
        "_plain",
        "_published_images",
        "_shapes",
        "_sklearn",
        "_versions",
        "_warn",
        "_whole_file",
        "networks",
    ),
    ("training",),
    # Arrays in, arrays out: they know neither estimators nor rows.
    (
        "augment",
        "corruptions",
        "outliers",
        "scores",
    ),
    ("estimator",),
    (
        "_tables",
        "backbones",
        "callbacks",
        "datasets",
        "drift",
        "metrics",
        "model_selection",
        "open_set",
        "plotting",
        "thresholds",
    ),
    ("encoders",),
    ("detectors", "posthoc"),
    ("compare", "export"),
    ("__main__",),
)


def find_modules():
    """Return the dotted name within skood of every module, and its path."""
    modules = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


MODULES = find_modules()


def nodes_that_run(tree):
    """Yield the nodes of a syntax tree, in functions too, but not those under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in node.orelse:
                yield other
                yield from nodes_that_run(other)
            continue
        yield node
        yield from nodes_that_run(node)


def imports(name, text):
    """Return the modules of skood, as dotted names within skood, that the module ``name`` with this text imports."""
    is_package = MODULES.get(name, SOURCE).name == "__init__.py"
    parts = ["skood", *name.split(".")] if name else ["skood"]
    package = parts if is_package else parts[:-1]
    found = set()
    for node in nodes_that_run(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # What is imported is a module of that package or, else, a name in that module.
            for alias in node.names:
                found.add(f"{origin}.{alias.name}")
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found.update(text.value for text in node.args[:1] if isinstance(text, ast.Constant))
    return {module_of(one.removeprefix("skood.")) for one in found if one.startswith("skood.")} - {""}


def module_of(dotted):
    """Return the module that ``dotted``, a module or a name in one, is in."""
    if dotted in skood._PUBLIC:
        return skood._PUBLIC[dotted]
    while dotted and dotted not in MODULES:
        dotted = dotted.rpartition(".")[0]
    return dotted


def layer(name):
    """Return the number of the layer that a module is in."""
    for number, names in enumerate(LAYERS):
        if name.partition(".")[0] in names:
            return number
    pytest.fail(f"skood/{name.replace('.', '/')}.py is in no layer: name it in LAYERS, as low as its imports allow")


GRAPH = {name: imports(name, path.read_text(encoding="utf-8")) for name, path in MODULES.items() if name}


def test_no_import_goes_upwards():
    upwards = {(name, other) for name, others in GRAPH.items() for other in others if layer(other) > layer(name)}
    assert upwards == set()


def test_imports_form_no_circle():
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(f"these modules import each other: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("networks.mlp", "from ..augment import rotate", {"augment"}),
        ("networks.mlp", "from . import cnn", {"networks.cnn"}),
        ("networks", "from .cnn import SmallCNN", {"networks.cnn"}),
        ("networks.mlp", "def f():\n    from ..estimator.base import Detector", {"estimator.base"}),
        ("networks.mlp", "if TYPE_CHECKING:\n    from ..estimator.base import Detector", set()),
        ("networks.mlp", "if TYPE_CHECKING:\n    pass\nelse:\n    import skood.metrics", {"metrics"}),
        ("networks.mlp", "import_module('skood.outliers')", {"outliers"}),
        ("networks.mlp", "from .. import DUMDetector, __version__", {"detectors.dum"}),
        ("drift", "from . import datasets", {"datasets"}),
        ("drift", "from torch import nn\nimport numpy", set()),
    ],
)
def test_imports_are_found(name, text, expected):
    assert imports(name, text) == expected


def test_private_modules_of_scikit_learn_are_imported_in_one_place():
    where = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sklearn") and "._" in node.module
    }
    assert where == {"_sklearn"}


def test_few_names_stand_at_the_top():
    top = {name.partition(".")[0] for name in MODULES}
    assert len([name for name in top if name and not name.startswith("_")]) <= 21
