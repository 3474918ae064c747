"""What a training job does not import: libraries that it does not use."""

import subprocess
import sys

from tests.paths import ROOT

NOT_NEEDED = ("pandas", "nibabel", "scipy", "monai", "pydicom", "matplotlib")


def test_a_training_starts_without_libraries_that_it_does_not_use():
    code = "import sys, segbench.cli.train, segbench.training.loop; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(NOT_NEEDED).isdisjoint(said.split())
