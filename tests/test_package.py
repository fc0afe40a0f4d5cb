"""What a user meets first: the import, the names, the README."""

import doctest
import importlib
import pickle
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import sklearn

import skood

README = Path(__file__).parents[1] / "README.md"
SOURCE = Path(skood.__file__).parent
WITH_EXAMPLES = [
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in sorted(SOURCE.rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]


def run(script):
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


def test_import_loads_neither_torch_nor_skorch():
    heavy = "{'torch', 'skorch', 'pandas', 'sklearn', 'matplotlib'}"
    assert run(f"import sys, skood; dir(skood); print({heavy} & set(sys.modules))").strip() == "set()"


def test_a_detector_alone_does_not_load_skorch():
    assert run("import sys; from skood import DUMDetector; DUMDetector(); print('skorch' in sys.modules)") == "False\n"


def test_public_names():
    assert set(skood.__all__) <= set(dir(skood))
    for name in set(skood.__all__) - {"__version__"}:
        assert getattr(skood, name).__name__ == name
    assert {"metrics", "outliers", "datasets"} <= set(dir(skood))
    assert skood.metrics.auroc([1, -1], [1, 0]) == 1
    with pytest.raises(AttributeError, match="no attribute 'DumDetector'"):
        _ = skood.DumDetector


def test_unfitted_detector_pickles():
    detector = pickle.loads(pickle.dumps(skood.DUMDetector(lr=0.5)))
    assert detector.lr == 0.5


def test_star_import():
    names = {}
    exec("from skood import *", names)
    assert set(skood.__all__) <= set(names)


@pytest.mark.slow
@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_docstring_examples(module):
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    outcome = doctest.testmod(importlib.import_module(f"skood.{module}"), optionflags=flags)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_readme_example(capsys):
    """The code of the README, as it stands."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 1
    assert len(blocks[0].strip().splitlines()) <= 12
    names = {}
    exec(compile(blocks[0], str(README), "exec"), names)
    printed = capsys.readouterr().out
    assert float(printed.split()[-1]) > 0.9


@pytest.mark.slow
def test_guide_to_evaluating(capsys):
    """The code of the guide, block after block, and what it says of the figures."""
    text = (README.parent / "docs" / "evaluating.md").read_text(encoding="utf-8")
    names, printed = {}, []
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, "docs/evaluating.md", "exec"), names)
        printed.append(capsys.readouterr().out.split())
    outliers, inliers = map(float, printed[5])
    assert outliers < inliers
    false_alarms, caught = map(float, printed[6])
    assert false_alarms < 0.2 < 0.5 < caught
    same, drifted = map(float, printed[9])
    assert drifted < 1e-6 < 0.01 < same
    assert float(printed[-1][0]) > 0.1


def test_readme_names_commands_that_exist():
    text = README.read_text(encoding="utf-8")
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for target in ("compare", "test", "docs"):
        assert f"make {target}" in text
        assert f"\n{target}:" in makefile
    script = (README.parent / ".ci" / "run").read_text(encoding="utf-8")
    assert "make test" in script
    assert "make compare" in script


def test_links_of_the_readme_work_on_pypi():
    """Links within the repository become names of files there."""
    project = tomllib.loads((README.parent / "pyproject.toml").read_text(encoding="utf-8"))
    text = README.read_text(encoding="utf-8")
    relative = r"\]\((?!https?://)"
    assert len(re.findall(relative, text)) > 10
    for change in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(change["pattern"], change["replacement"], text)
    assert not re.findall(relative, text)
    assert "Choosing a detector (`docs/choosing.rst`)" in text


def test_the_version_stands_in_one_place():
    assert run("import sys; sys.argv = ['skood', '--version']; from skood.__main__ import main; main()") == (
        f"skood {skood.__version__}\n"
    )
    project = tomllib.loads((README.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["readme", "version"]
    assert project["tool"]["hatch"]["version"]["path"] == "skood/__init__.py"
    assert project["project"]["scripts"] == {"skood": "skood.__main__:run"}


def test_usage_names_the_command_that_was_called():
    script = "import sys; sys.argv = [{!r}, 'compare', '--seeds', 'x']; from skood.__main__ import main; main()"
    for called, named in (("/usr/bin/skood", "skood"), ("skood/__main__.py", "python -m skood")):
        done = subprocess.run([sys.executable, "-c", script.format(called)], capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith(f"{named} compare: error: ")


def test_versions_for_a_report(capsys):
    skood.show_versions()
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed["skood"] == skood.__version__
    assert printed["scikit-learn"] == sklearn.__version__
    assert printed["devices"].startswith("cpu")
    assert "not installed" not in printed.values()


def test_versions_are_of_all_packages_that_may_be_used(capsys, monkeypatch):
    path = Path(__file__).parents[1] / "pyproject.toml"
    if not path.exists():
        pytest.skip("comes with the repository alone")
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    extras = {name: needed for name, needed in project["optional-dependencies"].items() if name not in ("test", "docs")}
    used = {re.match(r"[\w-]+", text)[0] for needed in (project["dependencies"], *extras.values()) for text in needed}
    monkeypatch.setattr("skood._versions._version", lambda name: "1.0")
    skood.show_versions()
    assert used <= {line.split()[0] for line in capsys.readouterr().out.splitlines()}
