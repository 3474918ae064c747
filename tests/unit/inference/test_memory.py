"""Memory of a prediction: more classes and more planes than would fit at once do not raise it."""

import json
import subprocess
import sys

import pytest

from tests.paths import ROOT

SCRIPT = """
import json, resource, sys
from benchmarks.predict import peak_memory
from segbench.inference import sliding_window
sliding_window.ACCUMULATOR_BYTES = 1 << 24
print(json.dumps(peak_memory(json.loads(sys.argv[1]))))
"""


def peak_gb(shape_zyx, classes) -> float:
    job = json.dumps({"shape_zyx": shape_zyx, "classes": classes, "patch_size_zyx": (16, 32, 32)})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, job], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(done.stdout)["gb"]


@pytest.mark.slow
def test_memory_does_not_grow_with_classes_and_planes():
    small = peak_gb((32, 64, 64), 2)
    large = peak_gb((160, 96, 96), 64)
    whole = 160 * 96 * 96 * 64 * 4 / 1e9
    assert whole > 0.37
    assert large - small < whole / 2.5
