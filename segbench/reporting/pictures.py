"""Pictures of test cases that a page may show; `case_pictures` draws them, which needs images and label maps."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from segbench.core.errors import Problem, raise_problems, some
from segbench.core.files import sha256_of
from segbench.core.run_record import Picture
from segbench.reporting.run import Run

FOLDER = "pictures"
DESCRIPTION = (
    "Yellow solid line: reference; coloured dashed line: prediction. Each plane is the one with most wrong voxels, "
    "counted over the methods shown. Predictions and values are those of the first seed. Grey values from the 1st to "
    "the 99th percentile; left is the patient's left."
)


def anchor(picture: Picture) -> str:
    """Return the id of a picture on the page."""
    return f"picture/{picture.experiment}/{picture.task}/{picture.choice.replace(' ', '-')}"


def picture_of(run: Run, experiment: str, task: str, case: str, seen: Collection[str]) -> Picture | None:
    """Return the picture of a case among the files that the page shows, None without one."""
    own = (item for item in run.record.pictures if (item.experiment, item.task, item.case) == (experiment, task, case))
    return next((item for item in own if item.file in seen), None)


def permitted_pictures(run: Run, folder: Path) -> dict[str, bytes]:
    """Return file name -> content of the pictures of a results or report folder that a page may show.

    One that is not there is left out, which `absent_pictures` says.

    Raises:
        InputError: a picture is not the one that run.json names.
    """
    found, problems = {}, []
    for picture in run.record.pictures:
        path = folder / FOLDER / picture.file
        if not picture.may_be_shown or not path.is_file():
            continue
        digest = sha256_of(path)
        if digest != picture.sha256:
            expected = f"{picture.sha256}, as run.json says"
            problems.append(Problem(str(path), f"SHA-256 {digest}", expected, "restore the file, or run gather again"))
        found[picture.file] = path.read_bytes()
    raise_problems(problems)
    return found


def absent_pictures(run: Run, seen: Collection[str]) -> list[str]:
    """Return a notice that names the pictures that run.json has and the page may show, but which are not there."""
    absent = [item.file for item in run.record.pictures if item.may_be_shown and item.file not in seen]
    return [f"Pictures of this run that are not beside this page: {some(absent)}."] if absent else []
