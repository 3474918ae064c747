"""The workflow runs from a checkout below folders with blanks, quotes, braces, brackets and dollar signs."""

import copy
import subprocess
import tarfile

import pytest

from tests.paths import ROOT
from tests.workflow.tiny import CONFIG, Workflow


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the checkout is copied by git")
def test_a_run_from_a_folder_with_blanks_quotes_and_braces_ends(tmp_path):
    checkout = tmp_path / "my {a} 'projects' $HOME [b]"
    checkout.mkdir()
    archive = tmp_path / "code.tar"
    subprocess.run(["git", "archive", "-o", str(archive), "HEAD"], cwd=ROOT, check=True)
    with tarfile.open(archive) as packed:
        packed.extractall(checkout, filter="data")
    config = copy.deepcopy(CONFIG)
    config["upstream"] = {"tasks": ["phantom_spleen"], "models": ["single_task"], "controls": ["empty"]}
    del config["downstream"]
    tiny = Workflow(checkout, config)
    del tiny.environment["PYTHONPATH"]
    command = ["snakemake", "--cores", "1", "--snakefile", str(checkout / "workflow" / "Snakefile")]
    ended = subprocess.run(
        [*command, "--configfile", str(tiny.config_path)],
        cwd=checkout,
        env=tiny.environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert (checkout / "results" / "tiny" / "report" / "index.html").exists()
