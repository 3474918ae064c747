"""The small workflow from an environment with Snakemake alone and `--use-conda`: the scores are those of the pip run.

Run by `make test-conda`. Without a conda client it says so and ends with 0. Prints a transcript with times and sizes;
ends with status 1 at the first difference.
"""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from tests.paths import ROOT
from tests.workflow.tiny import CONFIG

CLIENT = "conda"
"""The command that Snakemake calls; Miniforge brings it."""
STARTED = time.monotonic()


def say(text: str) -> None:
    """Print a line of the transcript."""
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", flush=True)


def run(command: list[str], title: str, *, path: Path, folder: Path) -> None:
    """Run a command with `path` first on PATH; print its time, or end with its last lines."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment = kept | {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if ended.returncode:
        say(f"FAILED: {title}")
        print((ended.stdout + ended.stderr)[-4000:])
        sys.exit(1)
    say(title)


def snakemake(python: Path, *arguments: str) -> list[str]:
    """Return the command of the workflow under a Python."""
    command = [str(python), "-m", "snakemake", "--cores", "2", "--snakefile", str(ROOT / "workflow" / "Snakefile")]
    return [*command, "--configfile", "config.yaml", *arguments]


def size_of(folder: Path) -> str:
    """Return the size of a folder in GB."""
    size = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
    return f"{size / 1e9:.2f} GB"


def main() -> int:
    """Compare the two ways of installing."""
    if shutil.which(CLIENT) is None:
        print(f"SKIPPED: no {CLIENT} on PATH; nothing was tested. https://conda-forge.org/download installs one")
        return 0
    say(subprocess.run([CLIENT, "--version"], check=True, capture_output=True, text=True).stdout.strip())
    config = copy.deepcopy(CONFIG)
    config["upstream"] |= {"self_supervised": []}
    config["downstream"]["initialisations"] = ["scratch", "uniseg"]
    with tempfile.TemporaryDirectory(prefix="segbench-conda.") as name:
        of_pip, of_conda, bare = (Path(name) / part for part in ("pip", "conda", "bare"))
        for folder in (of_pip, of_conda):
            folder.mkdir()
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
        own = Path(sys.executable)
        run([str(own), "-m", "venv", str(bare)], "an empty environment", path=own.parent, folder=of_conda)
        python = bare / "bin" / "python"
        lock = ["-c", str(ROOT / "envs" / "lock.txt"), "snakemake"]
        run([str(python), "-m", "pip", "install", "--quiet", *lock], "Snakemake in it", path=bare / "bin", folder=bare)
        only_create = snakemake(python, "--use-conda", "--conda-create-envs-only")
        run(
            only_create, "conda environments created, as for a site without network", path=bare / "bin", folder=of_conda
        )
        for folder in sorted((of_conda / ".snakemake" / "conda").iterdir()):
            if folder.is_dir():
                kept = (folder.parent / f"{folder.name}.yaml").read_text()
                title = next(path.name for path in (ROOT / "envs").glob("*.yaml") if path.read_text() == kept)
                say(f"  {title}: {size_of(folder)}")
        run(snakemake(python, "--use-conda"), "the workflow by conda", path=bare / "bin", folder=of_conda)
        run(snakemake(own), "the workflow by pip", path=own.parent, folder=of_pip)
        found = [(folder / "results" / "tiny" / "scores.csv").read_bytes() for folder in (of_pip, of_conda)]
    if found[0] != found[1]:
        say("FAILED: the scores differ")
        return 1
    say(f"equal scores, {len(found[0].splitlines()) - 1} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
