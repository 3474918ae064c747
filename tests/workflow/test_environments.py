"""The conda environment and the lock are one truth, and the graph needs Snakemake alone."""

import importlib.util
import subprocess
import sys

from tests.paths import ROOT


def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "envs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_conda_environment_is_generated_from_the_lock():
    text = (ROOT / "envs" / "segbench.yaml").read_text()
    assert text == generator().environment(), "run: python envs/generate.py"
    assert " -r " not in text


def test_torch_is_pinned_without_local_version_and_hash():
    (torch,) = [line for line in generator().pins("lock.txt") if line.startswith("torch==")]
    assert torch == "torch==2.13.0"


def test_every_rule_has_log_and_environment():
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        rules = path.read_text().split("rule ")[1:]
        for text in rules:
            assert "log:" in text, f"{path.name}: {text.splitlines()[0]} has no log"
            assert "ENVIRONMENT" in text, f"{path.name}: {text.splitlines()[0]} has no environment"


def test_what_the_snakefile_imports_needs_no_numerical_library():
    code = (
        "import sys; sys.path.insert(0, '.'); import segbench.experiment.graph, segbench.core.provenance; "
        "heavy = {'numpy', 'torch', 'pandas', 'scipy', 'nibabel'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
