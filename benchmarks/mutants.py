"""Break skood on purpose, one line at a time, and check that the tests notice.

Each mutant is a small mistake that leaves everything running: a wrong sign, constant or distribution. Its tests must
fail. Run it after tests or code of the methods were changed::

    python benchmarks/mutants.py [--only NAME ...] [--list]

A mutant whose old text is not there any more, after a refactoring, is an error: mend the mutant.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutant(NamedTuple):
    """A mistake in a file: the old text, which stands there once, the new text, and the tests of which one must fail.

    Paths are relative to the repository. Tests are pytest's: ``tests/test_x.py::test_name``.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


DUM, TEST_DUM = "skood/detectors/dum.py", "tests/detectors/test_dum.py::"
REJECT, TEST_REJECT = "skood/detectors/reject_classes.py", "tests/detectors/test_reject_classes.py::"
VAE, TEST_VAE = "skood/detectors/negative_sampling_vae.py", "tests/detectors/test_negative_sampling_vae.py::"
ROTATION, TEST_ROTATION = "skood/detectors/rotation.py", "tests/detectors/test_rotation.py::"
ADAPTERS, TEST_ADAPTERS = "skood/detectors/residual_adapters.py", "tests/detectors/test_residual_adapters.py::"
SIMCLR, TEST_SIMCLR = "skood/encoders/contrastive.py", "tests/encoders/test_contrastive.py::"
CORRUPTIONS, TEST_CORRUPTIONS = "skood/corruptions.py", "tests/test_corruptions.py::"
OUTLIERS, TEST_OUTLIERS = "skood/outliers.py", "tests/test_outliers.py::"
SCORES, TEST_SCORES = "skood/scores.py", "tests/test_scores.py::"
THRESHOLDS, TEST_THRESHOLDS = "skood/thresholds.py", "tests/test_thresholds.py::"
OFFSET, TEST_OFFSET = "skood/estimator/offset.py", "tests/estimator/test_offset.py::"

MUTANTS = [
    # ------------------------------------------------------------------------------------------------------------ DUM
    Mutant(
        "dum-noise-uniform",
        DUM,
        "scale.uniform_(math.log(low), math.log(high), generator=fit_generator(rows.device)).exp_()",
        "scale.uniform_(low, high, generator=fit_generator(rows.device))",
        (TEST_DUM + "test_scales_of_the_views_are_log_uniform",),
    ),
    Mutant(
        "dum-noise-of-one-scale",
        DUM,
        "scale = torch.empty(bag_size, len(rows), 1, device=rows.device)",
        "scale = torch.empty(1, 1, 1, device=rows.device)",
        (TEST_DUM + "test_scales_of_the_views_are_log_uniform",),
    ),
    Mutant(
        "dum-noise-of-one-scale-a-row",
        DUM,
        "scale = torch.empty(bag_size, len(rows), 1, device=rows.device)",
        "scale = torch.empty(1, len(rows), 1, device=rows.device)",
        (TEST_DUM + "test_scales_of_the_views_are_log_uniform",),
    ),
    Mutant(
        "dum-circular-base-sum",
        DUM,
        "square.mean(1, keepdim=True) if raw.shape[1] == 1",
        "square.sum(1, keepdim=True) if raw.shape[1] == 1",
        (TEST_DUM + "test_base_by_hand",),
    ),
    Mutant(
        "dum-reach-of-the-least-noise",
        DUM,
        "self.view_noise[1] if noisy else None",
        "self.view_noise[0] if noisy else None",
        (TEST_DUM + "test_base_by_hand",),
    ),
    Mutant(
        "dum-three-views", DUM, "_VIEWS_PER_BAG = 2", "_VIEWS_PER_BAG = 3", (TEST_DUM + "test_default_sizes_of_bags",)
    ),
    Mutant(
        "dum-bags-of-a-quarter",
        DUM,
        "half = len(rows) // 2",
        "half = len(rows) // 4",
        (TEST_DUM + "test_default_sizes_of_bags",),
    ),
    Mutant(
        "dum-paper-bound",
        DUM,
        '"max_log_variance": 5.0,',
        '"max_log_variance": 50.0,',
        (TEST_DUM + "test_all_that_the_paper_sets",),
    ),
    Mutant(
        "dum-paper-schedule",
        DUM,
        '"schedule": "constant",\n        }',
        '"schedule": "cosine",\n        }',
        (TEST_DUM + "test_all_that_the_paper_sets",),
    ),
    Mutant(
        "dum-product-of-variances",
        DUM,
        "return (weights * mean).sum(dim), -torch.logsumexp(-log_variance, dim)",
        "return (weights * mean).sum(dim), log_variance.mean(dim)",
        (TEST_DUM + "test_product_of_two_experts",),
    ),
    Mutant(
        "dum-whitening-of-both",
        DUM,
        '"whiten" if self.bags == "views" and few else "standard"',
        '"whiten" if few else "standard"',
        (TEST_DUM + "test_auto_scaling",),
    ),
]


def copied(folder: Path) -> None:
    """Copy what is needed to run tests: the package, the tests and the settings of pytest."""
    for name in ("skood", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def run(folder: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run tests in a copy of the repository, up to the first that fails."""
    # Two files that are written within a second and have one length share their bytecode.
    env = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    # "-m" puts the current folder, the copy, before all others from which Python imports.
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def killed_by(mutant: Mutant, folder: Path) -> str | None:
    """Return the first test that fails with a mutant in this copy of the repository, or None if all pass.

    Raises
    ------
    ValueError
        If the old text does not stand in the file exactly once, or the tests cannot be run.
    """
    path = folder / mutant.file
    whole = path.read_text()
    if whole.count(mutant.old) != 1:
        raise ValueError(f"the old text stands {whole.count(mutant.old)} times in {mutant.file}: mend the mutant.")
    path.write_text(whole.replace(mutant.old, mutant.new))
    try:
        done = run(folder, mutant.tests)
    finally:
        path.write_text(whole)
    failed = re.search(r"^FAILED (\S+)", done.stdout, flags=re.MULTILINE)
    # Other exit codes than 1 are of tests that are not there, or of code that cannot be imported.
    if done.returncode not in (0, 1) or bool(done.returncode) != bool(failed):
        raise ValueError(f"its tests cannot be run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return failed[1] if failed else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants; return 1 if one survives or cannot be made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these mutants alone")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    options = parser.parse_args(arguments)
    unknown = set(options.only or ()) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"no mutant {', '.join(sorted(unknown))}; --list names all.")
    mutants = [mutant for mutant in MUTANTS if not options.only or mutant.name in options.only]
    if options.list:
        print("\n".join(mutant.name for mutant in mutants))
        return 0
    n_left = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied(folder)
        # A test that fails without a mutant would kill all of them.
        done = run(folder, sorted({test for mutant in mutants for test in mutant.tests}))
        if done.returncode:
            print(f"The tests fail without a mutant:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
            return 1
        for mutant in mutants:
            try:
                killer = killed_by(mutant, folder)
                told = f"killed by {killer}" if killer else "SURVIVED"
            except ValueError as error:
                killer, told = None, f"ERROR: {error}"
            n_left += killer is None
            print(f"{mutant.name}: {told}", flush=True)
    print(f"{len(mutants) - n_left} of {len(mutants)} killed.")
    return int(n_left > 0)


if __name__ == "__main__":
    sys.exit(main())
