"""benchmarks/mutants.py: its mutants fit the code and the tests as they are."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def mutants(load_benchmark):
    return load_benchmark("mutants")


def test_old_texts_stand_in_their_files_once(mutants):
    names = [mutant.name for mutant in mutants.MUTANTS]
    assert len(set(names)) == len(names)
    for mutant in mutants.MUTANTS:
        assert (ROOT / mutant.file).read_text().count(mutant.old) == 1, mutant.name
        assert mutant.new != mutant.old, mutant.name


def test_the_tests_that_are_to_kill_exist(mutants):
    tests = {test.partition("[")[0] for mutant in mutants.MUTANTS for test in mutant.tests}
    assert all(mutant.tests for mutant in mutants.MUTANTS)
    for test in tests:
        path, _, name = test.partition("::")
        defined = {node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)}
        assert name in defined, test


CODE = "def double(x):\n    return 2 * x\n"
TEST = "from skood.code import double\n\n\ndef test_double():\n    assert double(3) == 6\n"


def test_what_is_told_of_mutants(mutants, tmp_path, monkeypatch, capsys):
    for folder in ("skood", "tests", "benchmarks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "skood" / "__init__.py").touch()
    code = tmp_path / "skood" / "code.py"
    code.write_text(CODE)
    (tmp_path / "tests" / "test_code.py").write_text(TEST)
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    changes = {"dead": ("2 * x", "3 * x"), "alive": ("2 * x", "x * 2"), "gone": ("4 * x", "3 * x"), "bad": ("x)", "x")}
    made = [
        mutants.Mutant(name, "skood/code.py", *change, ("tests/test_code.py::test_double",))
        for name, change in changes.items()
    ]
    monkeypatch.setattr(mutants, "MUTANTS", made)
    # Plugins of pytest take most of the time.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    assert mutants.main([]) == 1
    told = capsys.readouterr().out
    for line in (
        "dead: killed by tests/test_code.py::test_double\n",
        "alive: SURVIVED\n",
        "gone: ERROR: the old text occurs 0 times in skood/code.py",
        "bad: ERROR: its tests cannot be run:\n",
        "\n1 of 4 killed.\n",
    ):
        assert line in told
    assert code.read_text() == CODE
    code.write_text(CODE.replace("2", "3"))
    assert mutants.main(["--only", "dead"]) == 1
    assert "The tests fail without a mutant" in capsys.readouterr().out


def test_mutants_by_name(mutants, capsys):
    first = mutants.MUTANTS[0].name
    assert mutants.main(["--list", "--only", first]) == 0
    assert capsys.readouterr().out == f"{first}\n"
    with pytest.raises(SystemExit):
        mutants.main(["--only", "nothing"])
    assert "no mutant nothing" in capsys.readouterr().err
