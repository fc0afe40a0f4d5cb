"""Arrays larger than the memory that may be allocated."""

import os
import subprocess
import sys

import numpy as np
import pytest

# RLIMIT_DATA counts what a process allocates. It does not count the pages of a file that is mapped for reading, which
# the system takes back when it wants them; resident memory does, and would fail detectors that only look at the file.
SCRIPT = """
import resource
import sys

import numpy as np

import skood
from skood.training import batches

# A gigabyte of a memory map is held in memory otherwise.
batches.RESIDENT_BYTES = batches.STREAM_BYTES = 2**22


def field(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    sys.exit("skip: the system does not tell what a process has allocated")


X = np.load(sys.argv[1], mmap_mode="r")
detectors = {
    "DUMDetector": {"hidden_sizes": (4,)},
    # One that sets a threshold on held-out rows is enough.
    "NegSampleVAE": {"hidden_sizes": (4,), "latent_dim": 2, "contamination": 0},
}
detectors = {
    name: getattr(skood, name)(max_epochs=1, batch_size=250, random_state=0, device="cpu", **params)
    for name, params in detectors.items()
}
for detector in detectors.values():
    # Whatever libraries take once, they have taken before there is a limit.
    detector.fit(X[:1000]).score_samples(X[:1000])
limit = field("VmData:") + X.nbytes // 2
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.ones(X.size, dtype=X.dtype)
except MemoryError:
    pass
else:
    sys.exit("skip: the system does not limit what a process allocates")
for name, detector in detectors.items():
    scores = detector.fit(X).score_samples(X)
    assert scores.shape == (len(X),)
    assert np.array_equal(np.sort(scores), detector.training_scores_), name
    print(name, len(scores))
"""


def test_a_memory_map_larger_than_the_memory_allowed_trains_and_scores(tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("RLIMIT_DATA is Linux's")
    rng = np.random.default_rng(0)
    X = np.lib.format.open_memmap(tmp_path / "X.npy", mode="w+", dtype=np.float32, shape=(60_000, 256))
    for part in np.array_split(X, 10):
        part[:] = rng.standard_normal(size=part.shape, dtype=np.float32)
    X.flush()
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "X.npy")]
    # Threads take memory each.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if "skip:" in done.stderr:
        pytest.skip(done.stderr.partition("skip: ")[2].strip())
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["DUMDetector", "60000", "NegSampleVAE", "60000"]
