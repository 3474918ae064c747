"""Publish the report of a run: verify it, and copy it to reports/RUN, where git keeps it."""

from __future__ import annotations

import shutil
import stat
import tempfile
from pathlib import Path

from segbench.core.errors import Problem, RunFailed, raise_problems
from segbench.core.files import part_prefix
from segbench.core.paths import MADE_FROM, PAGE, RunPaths
from segbench.core.provenance import content_hash
from segbench.core.run_record import read_run_record
from segbench.experiment import requests
from segbench.reporting.verify import differing_files


def publish(run: str) -> Path:
    """Copy the report of a finished run to reports/RUN; what is there is replaced.

    Args:
        run: name of the run; its report is in results/RUN/report.

    Returns:
        The folder of the published report.

    Raises:
        InputError: the run has no report, or its report was rendered from other results than it has now, or by another
            config than that of a run which has not ended.
        RunFailed: a file of the report is not what its scores and record give; nothing is published.
    """
    paths = RunPaths(run)
    raise_problems(_problems(paths))
    differing = differing_files(paths.report)
    if differing:
        raise RunFailed(f"{paths.report} is not what its score rows give: {'; '.join(differing)}; nothing is published")
    _copy(paths.report, paths.published)
    return paths.published


def _problems(paths: RunPaths) -> list[Problem]:
    files = [folder / name for folder in (paths.root, paths.report) for name in MADE_FROM]
    missing = [path for path in [*files, paths.report / PAGE] if not path.is_file()]
    if missing:
        return [Problem(str(path), "no file", "a finished run with its report", "run the workflow") for path in missing]
    known = read_run_record(paths.run_record).config_sha256
    # config.json is written when a run begins, run.json when its results are gathered
    if paths.config.is_file() and content_hash(requests.read(paths.config)) != known:
        fix = "run the workflow to its end with this config"
        return [Problem(str(paths.config), "another config", f"that of {paths.run_record}", fix)]
    return [
        Problem(str(paths.report / name), "other content", f"that of {paths.root / name}", "run the workflow again")
        for name in MADE_FROM
        if (paths.root / name).read_bytes() != (paths.report / name).read_bytes()
    ]


def _copy(source: Path, target: Path) -> None:
    """Copy a folder so that the target is the former one or the new one, never a mixture; the copy can be changed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=part_prefix(), dir=target.parent) as folder:
        new, former = Path(folder) / "new", Path(folder) / "former"
        shutil.copytree(source, new)
        for path in (new, *new.rglob("*")):  # a copy of a folder that is read only could not be moved, or replaced
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
        if target.exists():
            target.rename(former)
        new.rename(target)
