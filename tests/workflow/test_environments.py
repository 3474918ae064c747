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


def test_the_conda_environments_are_generated_from_the_lock():
    found = generator().environments()
    assert set(found) == {path.name for path in (ROOT / "envs").glob("*.yaml")}
    for name, text in found.items():
        assert (ROOT / "envs" / name).read_text() == text, "run: python envs/generate.py"
        assert " -r " not in text


def test_the_light_environment_is_the_lock_without_what_networks_need():
    module = generator()
    text, lock = module.environments()["light.yaml"], module.pins("lock.txt")
    names = {pin.partition("==")[0] for pin in lock}
    assert names >= module.ONLY_FOR_NETWORKS, "each is a package of the lock"
    kept = [pin for pin in lock if f"- {pin}\n" in text]
    assert {pin.partition("==")[0] for pin in kept} == names - module.ONLY_FOR_NETWORKS


def test_the_executor_of_slurm_agrees_with_the_lock():
    module = generator()
    own = dict(pin.split("==") for pin in module.pins("lock-slurm.txt"))
    lock = dict(pin.split("==") for pin in module.pins("lock.txt"))
    assert all(lock.get(name, version) == version for name, version in own.items())


def test_light_rules_need_no_network():
    """What the commands of the light rules import is there without torch and what is built on it."""
    code = """
import importlib, importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(name)

ABSENT = {"torch", "monai", "batchgenerators", "batchgeneratorsv2", "skimage", "imageio", "networkx", "sympy"}
sys.meta_path.insert(0, Absent())
for name in (
    "segbench.data.phantoms.world", "segbench.data.checks", "segbench.data.ingest", "segbench.data.splitting.folds",
    "segbench.data.splitting.protocols", "segbench.data.audit", "segbench.data.preprocess", "segbench.reporting.page",
    "segbench.cli.phantom", "segbench.cli.ingest", "segbench.cli.split", "segbench.cli.audit",
    "segbench.cli.preprocess", "segbench.cli.report",
):
    importlib.import_module(name)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


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


def test_the_image_has_the_python_and_the_locks_of_the_other_ways():
    image, head = (ROOT / "envs" / "apptainer.def").read_text(), generator().HEAD
    assert "From: python:3.11-" in image
    assert "python=3.11\n" in head
    assert "command -v python3.11 ||" in (ROOT / "Makefile").read_text()
    for name in ("lock.txt", "lock-no-deps.txt", "lock-slurm.txt"):
        assert f"envs/{name} /opt/segbench/{name}" in image
        assert (ROOT / "envs" / name).is_file()
