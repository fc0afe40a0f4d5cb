"""What an editor sees of skood: the public names, with their parameters."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skood

SOURCE = Path(skood.__file__).parent

SNIPPET = """\
from skood import DUMDetector

DUMDetector(max_epochs=30)
DUMDetector(bag=2)
"""
# The packages behind skood are not read: they take a minute, and the parameters are skood's own.
SETTINGS = """\
[mypy]
ignore_missing_imports = true
follow_imports = silent
python_version = 3.11

[mypy-torch.*,sklearn.*,skorch.*,numpy.*,scipy.*,pandas.*,matplotlib.*,joblib.*]
follow_imports = skip
"""


def imported_for_type_checkers():
    """Return the statements under ``if TYPE_CHECKING`` in ``skood/__init__.py``."""
    module = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in module.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    return block.body


def test_type_checkers_see_the_public_names():
    names, modules = set(), set()
    for statement in imported_for_type_checkers():
        assert isinstance(statement, ast.ImportFrom)
        for alias in statement.names:
            # A type checker takes a name for public only if it is imported as itself.
            assert alias.asname == alias.name
            (names if statement.module else modules).add(alias.name)
    assert names == set(skood._PUBLIC)
    assert modules == set(skood._MODULES)


def test_type_checkers_look_where_the_names_live():
    for statement in imported_for_type_checkers():
        for alias in statement.names if statement.module else ():
            assert getattr(skood, alias.name).__module__ == f"skood.{statement.module}"


@pytest.mark.slow
def test_an_unknown_parameter_is_reported(tmp_path):
    pytest.importorskip("mypy", reason="no mypy: pip install '.[test]'")
    (tmp_path / "snippet.py").write_text(SNIPPET, encoding="utf-8")
    (tmp_path / "mypy.ini").write_text(SETTINGS, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "snippet.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"MYPYPATH": str(SOURCE.parent), "MYPY_CACHE_DIR": str(tmp_path / "cache")},
    )
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 1, done.stdout + done.stderr
    assert errors[0].startswith("snippet.py:4: ")
    assert 'Unexpected keyword argument "bag"' in errors[0]
