"""What an edit costs: each edit is made in a copy of a finished run, the workflow runs again, and what it did is read.

`python -m tests.workflow.reruns` measures all edits under the default profile and writes its table of docs/reruns.md;
`--profile slurm` does so under another one, whose jobs then run on this machine. test_reruns.py asserts the same rows.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from segbench.core.cards import dataset_cards
from segbench.core.files import write_text
from segbench.experiment.splits import read_splits
from tests.paths import ROOT
from tests.small_network import NETWORK
from tests.workflow.tiny import Workflow

PAGE = ROOT / "docs" / "reruns.md"
PROFILES = ("default", "slurm")
OF_AN_EXECUTOR = ("executor", "jobs", "slurm-")
"""How options of a profile begin that only its executor takes."""
PARTS = ("segbench", "models", "workflow", "config", "envs", "data/published")
TASKS = ["phantom_spleen", "phantom_petct", "phantom_schwannoma", "phantom_prostate", "phantom_brain"]
CONFIG: dict[str, Any] = {
    "run": "reruns",
    "data": {"root": "raw", "protocol": "kfold", "fold_count": 2, "folds": [0]},
    "network": NETWORK,
    "training": {"iterations_per_task": 3, "augmentation": "light"},
    "inference": {"step": 1.0},
    "upstream": {
        "tasks": ["phantom_spleen", "phantom_petct"],
        "models": ["uniseg", "single_task"],
        "controls": ["oracle", "empty"],
    },
    "downstream": {"tasks": ["phantom_schwannoma"], "initialisations": ["scratch", "uniseg"]},
    "metrics": ["dice"],
}
UNISEG = "upstream.uniseg.random.joint.f0.s0"
SPLEEN, PETCT = (f"upstream.single_task.random.{task}.f0.s0" for task in ("phantom_spleen", "phantom_petct"))
SCRATCH, FROM_UNISEG = (f"downstream.single_task.{name}.phantom_schwannoma.f0.s0" for name in ("scratch", "uniseg"))
ALL_TRAINED = {UNISEG, SPLEEN, PETCT, SCRATCH, FROM_UNISEG}


@dataclass
class Place:
    """A copy of the checkout and of a finished run that an edit may change."""

    folder: Path
    config: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(CONFIG))
    cores: str = "2"
    profile: str = "default"

    @property
    def checkout(self) -> Path:
        """The code that runs."""
        return self.folder / "checkout"

    @property
    def results(self) -> Path:
        """Results of the run."""
        return self.folder / "results" / "reruns"

    def run(self) -> str:
        """Run the workflow and return what it printed; it must end well."""
        workflow = Workflow(self.folder, self.config)
        workflow.environment["PYTHONPATH"] = str(self.checkout)
        command = workflow.command()
        command[command.index("--snakefile") + 1] = str(self.checkout / "workflow" / "Snakefile")
        command[command.index("--workflow-profile") + 1] = str(self.local_profile())
        command[command.index("--cores") + 1] = self.cores
        found = subprocess.run(command, cwd=self.folder, env=workflow.environment, capture_output=True, text=True)
        assert found.returncode == 0, (found.stdout + found.stderr)[-6000:]
        return found.stdout + found.stderr

    def local_profile(self) -> Path:
        """Return the folder of a copy of the profile whose jobs run here; triggers and resources stay."""
        shipped = self.checkout / "workflow" / "profiles" / self.profile / "config.yaml"
        options = yaml.safe_load(shipped.read_text())
        kept = {name: value for name, value in options.items() if not name.startswith(OF_AN_EXECUTOR)}
        folder = self.folder / "profile"
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(kept))
        return folder

    def case(self, task: str) -> Path:
        """Return the image of a training case of a task."""
        name = read_splits(self.results / "splits.json").of(0, task).train[0]
        return next((self.folder / "raw").glob(f"*/images*/{name}*.nii.gz"))


@dataclass(frozen=True)
class Done:
    """What a run did: jobs trained, cases predicted and scored, whether the page was rendered."""

    trained: frozenset[str]
    predicted: int
    scored: int
    rendered: bool


@dataclass(frozen=True)
class Edit:
    """An edit, what must be trained because of it, and why that is right; `None` leaves a count open."""

    title: str
    make: Callable[[Place], object]
    trained: frozenset[str]
    why: str
    predicted: bool = False
    scored: bool = False
    rendered: bool = False
    quick: bool = False


def outcomes(place: Place) -> dict[tuple[str, str], dict]:
    """Return (command, job) -> outcome."""
    return {
        (path.parts[-3], path.parts[-2]): json.loads(path.read_text())
        for command in ("train", "evaluate")
        for path in sorted((place.results / command).glob("*/outcome.json"))
    }


def measured(place: Place) -> Done:
    """Run and return what was done."""
    before, page = outcomes(place), place.results / "report" / "index.html"
    rendered = page.stat().st_mtime_ns if page.exists() else 0
    place.run()
    after = outcomes(place)
    again = {key: found for key, found in after.items() if found["started"] != before.get(key, {}).get("started")}
    evaluated = [found for (command, _), found in again.items() if command == "evaluate"]
    return Done(
        frozenset(job for command, job in again if command == "train"),
        sum(found["predicted"] for found in evaluated),
        sum(found["scored"] for found in evaluated),
        page.stat().st_mtime_ns != rendered,
    )


def build(folder: Path, *, profile: str = "default") -> Path:
    """Copy the checkout, generate raw volumes and run the workflow once; return the folder to copy from.

    The profile is that of the edits: its threads are part of what gives a job that is made again the same bytes.
    """
    base = folder / "base"
    ignored = shutil.ignore_patterns("__pycache__", "results", "raw", "preprocessed")
    for name in PARTS:
        shutil.copytree(ROOT / name, base / "checkout" / name, ignore=ignored)
    arguments = ["--seed", "5", "--train", "4", "--test", "2", "--tasks", ",".join(TASKS)]
    subprocess.run(
        [sys.executable, "-m", "segbench", "phantom", "--out", str(base / "raw"), *arguments],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    Place(base, profile=profile).run()
    return base


def copied(base: Path, folder: Path, *, profile: str = "default") -> Place:
    """Return a copy of the finished run with the same file times."""
    subprocess.run(["cp", "-a", str(base), str(folder)], check=True)
    return Place(folder, profile=profile)


def _config(**changes: Any) -> Callable[[Place], None]:
    """Return an edit that sets keys of the config; `section__key` goes one level down."""

    def make(place: Place) -> None:
        for name, value in changes.items():
            *sections, key = name.split("__")
            target = place.config
            for section in sections:
                target = target.setdefault(section, {})
            target[key] = value

    return make


def _text(name: str, former: str, new: str) -> Callable[[Place], None]:
    """Return an edit that replaces text in a file of the checkout."""

    def make(place: Place) -> None:
        path = place.checkout / name
        text = path.read_text()
        assert former in text, f"{name} has no {former!r}"
        path.write_text(text.replace(former, new, 1))

    return make


def _append(name: str, text: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        path = place.checkout / name
        path.write_text(path.read_text() + text)

    return make


def _changed_image(place: Place) -> None:
    import nibabel as nib
    import numpy as np

    path = place.case("phantom_spleen")
    image = nib.load(path)
    data = np.asarray(image.dataobj).copy()
    data[0, 0, 0] += 1
    changed = nib.Nifti1Image(data, image.affine, image.header)
    nib.save(changed, path)


def _repaired_image(place: Place) -> None:
    original = place.case("phantom_spleen").read_bytes()
    _changed_image(place)
    place.run()
    place.case("phantom_spleen").write_bytes(original)


def _moved_data(place: Place) -> None:
    (place.folder / "raw").rename(place.folder / "moved")
    place.config["data"]["root"] = "moved"


def _moved_run(place: Place) -> None:
    target = place.folder.with_name(place.folder.name + "-moved")
    place.folder.rename(target)
    place.folder = target


def _purged(place: Place) -> None:
    shutil.rmtree(place.folder / ".snakemake")
    place.config["training"]["iterations_per_task"] = 2


def _cores(place: Place) -> None:
    place.cores = "1"


def _user_card(key: str, value: Any) -> Callable[[Place], None]:
    """Return an edit of the spleen's card in the checkout."""

    def make(place: Place) -> None:
        path = place.checkout / "segbench" / "data" / "sources" / "phantom_spleen.py"
        former = dataset_cards()["phantom_spleen"][key]
        text = path.read_text()
        assert repr(former).strip("'") in text
        path.write_text(text.replace(repr(former).strip("'"), value, 1))

    return make


STRUCTURE = {"name": "spleen", "labels": [1], "tolerance_mm": 9.0}
NONE: frozenset[str] = frozenset()
EDITS = (
    Edit("nothing", lambda place: None, NONE, "everything is there", quick=True),
    Edit(
        "one more seed",
        _config(seeds=[0, 1]),
        frozenset(job.replace(".s0", ".s1") for job in ALL_TRAINED),
        "the first seed's results stand; controls have no seed",
        predicted=True,
        scored=True,
        rendered=True,
    ),
    Edit(
        "one more fold",
        _config(data__folds=[0, 1]),
        frozenset(job.replace(".f0", ".f1") for job in ALL_TRAINED),
        "the splits file holds all folds from the start",
        predicted=True,
        scored=True,
        rendered=True,
    ),
    Edit(
        "one more baseline",
        _config(upstream__models=["uniseg", "single_task", "dodnet"]),
        frozenset({"upstream.dodnet.random.joint.f0.s0"}),
        "no model depends on another",
        predicted=True,
        scored=True,
        rendered=True,
    ),
    Edit(
        "one more metric",
        _config(metrics=["dice", "nsd"]),
        NONE,
        "kept label maps are scored again; only those of the oracle are not kept",
        predicted=True,
        scored=True,
        rendered=True,
    ),
    Edit(
        "one more upstream task",
        _config(upstream__tasks=["phantom_spleen", "phantom_petct", "phantom_prostate"]),
        frozenset({UNISEG, FROM_UNISEG, "upstream.single_task.random.phantom_prostate.f0.s0"}),
        "universal models learn all tasks together; what is initialised with them follows",
        predicted=True,
        scored=True,
        rendered=True,
    ),
    Edit(
        "one more downstream task",
        _config(downstream__tasks=["phantom_schwannoma", "phantom_brain"]),
        frozenset(job.replace("phantom_schwannoma", "phantom_brain") for job in (SCRATCH, FROM_UNISEG)),
        "upstream jobs and the other downstream task do not know of it",
        predicted=True,
        scored=True,
        rendered=True,
    ),
    Edit(
        "title of a data set",
        _user_card("title", "Another title"),
        NONE,
        "a title is no number",
        rendered=True,
        quick=True,
    ),
    Edit("citation of a data set", _user_card("citation", "Doe 2026"), NONE, "a citation is no number", rendered=True),
    Edit(
        "tolerance of a structure",
        _config(structures={"phantom_spleen": [STRUCTURE]}),
        NONE,
        "the task's label maps are scored again",
        predicted=True,
        scored=True,
        rendered=True,
    ),
    Edit(
        "one more scored structure",
        _config(structures={"phantom_spleen": [STRUCTURE, STRUCTURE | {"name": "again"}]}),
        NONE,
        "networks learn classes, not structures",
        predicted=True,
        scored=True,
        rendered=True,
    ),
    Edit(
        "what a missing mask counts as",
        _config(missing_masks={"dice": {"prediction_empty": "exclude"}}),
        NONE,
        "applied when rows are aggregated",
        rendered=True,
    ),
    Edit(
        "`accept_partial`",
        _config(data__accept_partial=["phantom_spleen"]),
        NONE,
        "a decision, not a number",
        rendered=True,
    ),
    Edit("data root moved", _moved_data, NONE, "the volumes have the same content", rendered=True),
    Edit("a raw file touched", lambda place: os.utime(place.case("phantom_spleen")), NONE, "same content", quick=True),
    Edit(
        "a raw image changed",
        _changed_image,
        frozenset({UNISEG, SPLEEN, FROM_UNISEG}),
        "jobs that saw the case, and what is initialised with their weights",
        predicted=True,
        scored=True,
        rendered=True,
    ),
    Edit(
        "the image repaired",
        _repaired_image,
        frozenset({UNISEG, SPLEEN, FROM_UNISEG}),
        "the weights of the damaged image are never used for the repaired one",
        predicted=True,
        scored=True,
        rendered=True,
    ),
    Edit(
        "a stray file beside the raw files",
        lambda place: (place.case("phantom_spleen").parent / ".DS_Store").write_bytes(b"x"),
        NONE,
        "no layout reads it",
        quick=True,
    ),
    Edit(
        "a comment in the training loop", _append("segbench/training/loop.py", "# words\n"), NONE, "no number changes"
    ),
    Edit(
        "a comment in one network",
        _append("models/uniseg/network.py", "# words\n"),
        NONE,
        "no number changes",
        quick=True,
    ),
    Edit(
        "a comment in a template",
        _append("segbench/reporting/page.html.j2", "{# words #}\n"),
        NONE,
        "a template is rendered by its bytes",
        rendered=True,
    ),
    Edit(
        "a comment in a style sheet",
        _append("segbench/reporting/page.css", "/* words */\n"),
        NONE,
        "it is in the page",
        rendered=True,
    ),
    Edit(
        "one network changed",
        _append("models/uniseg/prompt.py", "\nCHANGED = 1\n"),
        frozenset({UNISEG, FROM_UNISEG}),
        "its own jobs, and what is initialised with its weights",
        predicted=True,
        scored=True,
        rendered=True,
    ),
    Edit("run folder moved", _moved_run, NONE, "no path is part of an identity", quick=True),
    Edit("other `--cores`", _cores, NONE, "cores change no number"),
    Edit(
        "one deleted result (weights.pt)",
        lambda place: (place.results / "train" / SPLEEN / "weights.pt").unlink(),
        frozenset({SPLEEN}),
        "made again to the same bytes, so its scores stand; the page shows its new time",
        rendered=True,
        quick=True,
    ),
    Edit(
        "`.snakemake` removed and fewer iterations",
        _purged,
        frozenset(ALL_TRAINED),
        "requests hold the settings, with or without Snakemake's memory",
        predicted=True,
        scored=True,
        rendered=True,
    ),
)


def row(edit: Edit, done: Done) -> str:
    """Return the line of the table."""
    names = ", ".join(sorted(_short(job) for job in done.trained))
    trained = f"{len(done.trained)}: {names}" if done.trained else "none"
    rendered = "yes" if done.rendered else "no"
    return f"| {edit.title} | {trained} | {done.predicted} | {done.scored} | {rendered} | {edit.why} |"


def _short(job: str) -> str:
    _, model, initialisation, scope, fold, seed = job.split(".")
    words = [model, *([f"from {initialisation}"] if initialisation != "random" else []), scope, fold, seed]
    return " ".join(words)


HEAD = """\
# What an edit costs

Written by `python -m tests.workflow.reruns`, which makes each edit in a copy of a finished tiny run (two upstream
tasks, one downstream, UniSeg and single-task networks, {jobs} trained jobs; synthetic) and runs the workflow again. A
job that Snakemake starts although nothing changed compares identities and ends in about a second; it is not counted.
Cases are counted over all jobs, controls included. No edit trains a job whose result would be the same. `--profile
slurm` measures under the profile of SLURM, with its jobs on one machine.
"""
TABLE = """\
| edit | trained again | cases predicted | cases scored | page rendered | why that is right |
|---|---|---|---|---|---|
"""
SECTION = "\n## Profile `{profile}`\n\n"


def page_with(profile: str, table: str, former: str) -> str:
    """Return the page with a new table of one profile, and the other profiles' tables as they were."""
    tables = {profile: table}
    for name in PROFILES:
        _, found, text = former.partition(SECTION.format(profile=name))
        if found and name != profile:
            tables[name] = text.partition("\n## ")[0]
    sections = (SECTION.format(profile=name) + tables[name].strip() + "\n" for name in PROFILES if name in tables)
    return HEAD.format(jobs=len(ALL_TRAINED)) + "".join(sections)


def main() -> None:
    """Measure all edits under a profile and write its table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--profile", choices=PROFILES, default="default")
    profile = parser.parse_args().profile
    with tempfile.TemporaryDirectory() as name:
        base = build(Path(name), profile=profile)
        lines = []
        for number, edit in enumerate(EDITS):
            place = copied(base, Path(name) / f"edit{number}", profile=profile)
            edit.make(place)
            done = measured(place)
            lines.append(row(edit, done))
            print(lines[-1], "" if done.trained == edit.trained else f"  EXPECTED {sorted(edit.trained)}", flush=True)
            shutil.rmtree(place.folder)
    write_text(PAGE, page_with(profile, TABLE + "\n".join(lines), PAGE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
