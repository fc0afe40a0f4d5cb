import gc
import importlib.util
import os
import signal
from pathlib import Path

import pytest

# Before torch is imported. Threads that wait for others are to sleep: two tests at a time, of two threads each, have
# more threads than there are cores, and one that spins there keeps the others from working.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from hypothesis import HealthCheck, settings

CUDA = torch.cuda.is_available()


# Some tests press Ctrl-C. What a shell starts in the background ignores it, and so would the processes of the tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test is about time: on a busy machine an example may take ten times as long.
settings.register_profile("skood", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("skood")

# Two threads on tiny networks can be ten times slower than one on a busy machine.
torch.set_num_threads(1)

TESTS = Path(__file__).parent

# Folders and files that `make test-fast` leaves out: what trains for real, starts processes, or builds documents. Their
# tests bear the marker "slow", besides those of most estimators in the contract and the invariants (FAST in
# configurations.py).
SLOW = (
    "attack/test_kills.py",
    "benchmarks",
    "compare/test_compare.py",
    "compare/test_folders.py",
    "compare/test_protocols.py",
    "compare/test_timed.py",
    "detectors",
    "encoders",
    "posthoc",
    "test_dask.py",
    "test_disentanglement.py",
    "test_docs.py",
    "test_examples.py",
    "test_label_warning.py",
    "test_model_selection.py",
    "test_open_set.py",
    "test_package.py",
    "test_parameters.py",
    "test_tables.py",
    "test_warn.py",
    "training/test_distributed.py",
    "training/test_large_data.py",
)


def pytest_collection_finish():
    """Leave the tests and the packages out of garbage collections, a tenth of whose time goes into looking at these."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    gone = [name for name in SLOW if not (TESTS / name).exists()]
    if gone:
        raise pytest.UsageError(f"SLOW in tests/conftest.py names what does not exist: {', '.join(gone)}")
    # An id that holds the address of an object differs between two workers, and then neither of them runs a test.
    addressed = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if addressed:
        raise pytest.UsageError(f"ids of tests hold addresses: {', '.join(addressed)}")
    # Once a file: there are thousands of tests, and each worker does this.
    slow = {path for path in {item.path for item in items} if any(path.is_relative_to(TESTS / name) for name in SLOW)}
    for item in items:
        if item.path in slow:
            item.add_marker(pytest.mark.slow)


def pytest_runtest_setup():
    """Networks that a test builds are the same ones whatever ran before it: with two workers the order changes."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_home():
    """The folder of real data that the variable ``SKOOD_DATA`` names; developers and CI have one, users do not."""
    home = Path(os.environ.get("SKOOD_DATA", "")).resolve()
    if "SKOOD_DATA" not in os.environ or not home.is_dir():
        pytest.skip("no folder of real data: set SKOOD_DATA")
    return home


@pytest.fixture(scope="session")
def load_benchmark():
    """What imports a script of benchmarks/ by its name; the repository has them, the package does not."""

    def load(name):
        path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
        if not path.exists():
            pytest.skip("the benchmarks come with the repository alone")
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    if request.param == "cuda" and not CUDA:
        pytest.skip("no CUDA device")
    return request.param
