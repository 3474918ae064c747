"""A bundle: everything that a reviewer needs to check a run without images, weights, a GPU or torch, in one zip file.

It holds the rendered report with its scores and record, the resolved config, the splits, the findings of the leak audit
and the pinned environment, with a checksum of each file. The same run gives the same bytes. Reading trusts nothing:
names that leave the folder, links, unlisted files, other checksums and content that unpacks to too much are refused.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import stat
import tempfile
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segbench import __version__
from segbench.core.case import read_manifest
from segbench.core.code import ROOT
from segbench.core.errors import InputError, Problem, in_words, input_error, raise_problems
from segbench.core.files import atomic_path, sha256_of
from segbench.core.paths import AUDIT, CONFIG, MADE_FROM, RUN_RECORD, SCORES, SPLITS, RunPaths
from segbench.core.provenance import content_hash
from segbench.core.run_record import Finding, RunRecord, read_run_record
from segbench.core.vocabulary import SCORE_COLUMNS
from segbench.experiment import requests
from segbench.experiment.splits import Sides, Splits, no_such_case, read_splits
from segbench.reporting.page import render
from segbench.reporting.verify import differing_files
from segbench.stats.missing_masks import handling_of
from segbench.stats.scores import read_csv_text, read_scores

MANIFEST = "bundle.json"
REPORT = "report"
JOINED = "joined"
"""Key of config.json that holds the resolved configs of the sites that a bundle joins."""
FIXED_TIME = (1980, 1, 1, 0, 0, 0)
MOST_BYTES = 500_000_000
MOST_FILES = 10_000
MAKE_ANEW = "ask for the bundle again: `python -m segbench bundle RUN --out FILE.zip`"
LISTS_OF_METHODS = ("models", "external", "controls", "self_supervised")
LOCK = ROOT / "envs" / "lock.txt"
LOCK_PATTERN = re.compile(r"lock(-[0-9]+)?\.txt")
"""The pinned environment, or those of joined sites where they differ."""


class _Listed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class _Data(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    folds: list[int]


class _Config(BaseModel):
    """What a resolved config must hold to be compared; its other keys are kept as they are."""

    model_config = ConfigDict(extra="allow", strict=True)
    run: str
    data: _Data


class Manifest(BaseModel):
    """Content of bundle.json: `files` maps a name inside the bundle to its checksum and size."""

    model_config = ConfigDict(extra="forbid", strict=True)
    format: Literal[1]
    segbench: str
    run: str
    pseudonymised: bool
    files: dict[str, _Listed]


def write_bundle(run: str, out: Path, *, pseudonymise: bool = False) -> None:
    """Write the bundle of a finished run.

    Args:
        run: name of the run; its results are in results/RUN.
        out: the zip file; written whole or not at all.
        pseudonymise: replace the ids of patients and cases by numbers, in every file.

    Raises:
        InputError: the run is not finished, or a file of it is damaged.
    """
    paths = RunPaths(run)
    needed = (paths.scores, paths.run_record, paths.config, paths.splits, paths.audit)
    missing = [path for path in needed if not path.is_file()]
    raise_problems(Problem(str(path), "no file", "a finished run", "run the workflow first") for path in missing)
    texts = {path.name: path.read_text(encoding="utf-8") for path in needed}
    if content_hash(requests.read(paths.config)) != read_run_record(paths.run_record).config_sha256:
        fix = "run the workflow to its end with this config"
        raise input_error(paths.config, found="another config", expected=f"that of {paths.run_record}", fix=fix)
    if pseudonymise:
        texts = _pseudonymised(texts, paths)
    pack(out, texts | {"lock.txt": LOCK.read_text(encoding="utf-8")}, run=run, pseudonymised=pseudonymise)


def pack(out: Path, texts: Mapping[str, str], *, run: str, pseudonymised: bool) -> None:
    """Render the report of score rows and record, and write it into a bundle with further files.

    Args:
        out: the zip file; written whole or not at all.
        texts: name -> content of scores.csv, run.json, config.json, splits.json, audit.csv and the pinned environment.
        run: name of the run, as run.json has it.
        pseudonymised: whether ids of patients and cases were replaced.

    Raises:
        InputError: scores.csv and run.json do not describe a finished run.
    """
    with tempfile.TemporaryDirectory() as folder:
        finished, root = Path(folder) / "finished", Path(folder) / "bundle"
        for name, text in texts.items():
            path = (finished if name in MADE_FROM else root) / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        render(finished, root / REPORT)
        names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        listed = {name: _Listed(sha256=sha256_of(root / name), bytes=(root / name).stat().st_size) for name in names}
        manifest = Manifest(format=1, segbench=__version__, run=run, pseudonymised=pseudonymised, files=listed)
        with atomic_path(out) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            _add(archive, MANIFEST, manifest.model_dump_json(indent=1).encode())
            for name in names:
                _add(archive, name, (root / name).read_bytes())


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, FIXED_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    archive.writestr(entry, content)


def _pseudonymised(texts: Mapping[str, str], paths: RunPaths) -> dict[str, str]:
    """Return the texts with other ids; the order of the new ones says nothing about the old.

    The cases of all folds are numbered with their patients, so that sites that ran other folds name each alike.
    """
    rows = read_csv_text(paths.scores)
    split = read_splits(paths.splits).cases()
    manifests = {task: read_manifest(paths.manifest(task)) for task in sorted({task for task, _ in split})}
    listed = {(task, case.case_id): case.patient_id for task, found in manifests.items() for case in found}
    for task, case in sorted(split - listed.keys()):
        raise no_such_case(paths.manifest(task), case)
    patients = _numbered("patient", {listed[key] for key in split} | set(rows["patient"]))
    cases = _numbered("case", {case for _, case in split} | set(rows["case"]))
    ids = patients | cases
    in_prose = _any_of(name for name in ids if len(name) > 3 and not name.isdigit())
    in_findings = _any_of(ids)

    def text_of(text: str, pattern: re.Pattern[str] = in_prose) -> str:
        return ids.get(text) or pattern.sub(lambda match: ids[match.group()], text)

    def content_of(content: Any) -> Any:
        if isinstance(content, dict):
            return {key: content_of(value) for key, value in content.items()}
        if isinstance(content, list):
            return [content_of(item) for item in content]
        return text_of(content) if isinstance(content, str) else content

    found = dict(texts)
    rows["case"], rows["patient"] = rows["case"].map(cases), rows["patient"].map(patients)
    rows["reason"] = rows["reason"].map(text_of)
    found[SCORES] = csv_text(rows.sort_values(list(SCORE_COLUMNS[:12]), kind="stable"))
    splits = json.loads(texts[SPLITS])
    for tasks in splits["folds"].values():
        for sides in tasks.values():
            sides.update({side: [cases[case] for case in sides[side]] for side in ("train", "test")})
    splits["changes"] = content_of(splits["changes"])
    splits["sha256"] = content_hash({key: value for key, value in splits.items() if key != "sha256"})
    found[SPLITS] = json.dumps(splits, indent=1) + "\n"
    config = json.loads(texts[CONFIG])
    accepted = [text_of(name, in_findings) for name in config["data"].get("accept_leaks", [])]
    config = content_of(config)
    config["data"]["accept_leaks"] = accepted
    found[CONFIG] = json.dumps(config, indent=1, sort_keys=True) + "\n"
    record = json.loads(texts[RUN_RECORD])
    record["pictures"] = []  # they name cases, and a bundle has no image
    for finding in record["audit"]["findings"]:
        evidence = ("evidence",) if finding["kind"] == "same patient" else ()  # that of images is numbers
        for key in ("name", "train_cases", "test_cases", *evidence):
            finding[key] = text_of(finding[key], in_findings)
    record["audit"]["changes"] = content_of(record["audit"]["changes"])
    record["notices"] = content_of(record["notices"])
    for job in record["jobs"]:
        job["reason"] = text_of(job["reason"])
    record["scores_sha256"] = hashlib.sha256(found[SCORES].encode()).hexdigest()
    record["config_sha256"] = content_hash(config)
    found[RUN_RECORD] = json.dumps(record, indent=1) + "\n"
    stream = io.StringIO()
    columns = list(Finding.model_fields)
    findings = [[finding[name] for name in columns] for finding in record["audit"]["findings"]]
    csv.writer(stream, lineterminator="\n").writerows([columns, *findings])
    found[AUDIT] = stream.getvalue()
    return found


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    """Return what matches each of the names where it stands by itself, the longest first."""
    ordered = sorted(names, key=len, reverse=True)
    return re.compile("|".join(rf"(?<![\w.-]){re.escape(name)}(?![\w-])" for name in ordered) or r"(?!)")


def _numbered(word: str, ids: set[str]) -> dict[str, str]:
    ordered = sorted(ids, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return {name: f"{word}_{number:05d}" for number, name in enumerate(ordered, start=1)}


def csv_text(rows: pd.DataFrame) -> str:
    """Return the text of a score table."""
    return rows.to_csv(index=False, lineterminator="\n")


@contextmanager
def opened(path: Path) -> Iterator[tuple[Path, Manifest]]:
    """Unpack a bundle into a temporary folder, all checks passed, and yield the folder and the manifest.

    Raises:
        InputError: the file is no bundle, is newer than this version, truncated or edited, holds names that leave the
            folder, links or unlisted files, or would unpack to more than `MOST_BYTES`.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise _refused(
            path, in_words(error), "the folder of a report, or a bundle (a zip file that is whole)"
        ) from error
    with archive, tempfile.TemporaryDirectory() as folder:
        entries = {entry.filename: entry for entry in archive.infolist()}
        _refuse_entries(path, archive.infolist())
        manifest = _manifest(path, archive, entries)
        problems = [
            Problem(f"{path}: {name}", found, "the files that bundle.json lists", MAKE_ANEW)
            for names, found in (
                (entries.keys() - manifest.files.keys() - {MANIFEST}, "a file that is not listed"),
                (manifest.files.keys() - entries.keys(), "no file"),
            )
            for name in sorted(names)
        ]
        raise_problems(problems)
        _refuse_contents(path, manifest)
        for name, listed in manifest.files.items():
            content = _content(path, archive, entries[name], listed.bytes)
            if hashlib.sha256(content).hexdigest() != listed.sha256:
                raise _refused(f"{path}: {name}", "another SHA-256", f"{listed.sha256}, as {MANIFEST} says")
            target = Path(folder) / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            except OSError as error:
                raise _refused(path, f"the name {name!r} ({in_words(error)})", "names of files") from error
        yield Path(folder), manifest


def _refuse_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuse what must never be unpacked, before a byte is."""
    names = [entry.filename for entry in entries]
    for entry in entries:
        parts = PurePosixPath(entry.filename).parts
        leaves = entry.filename.startswith("/") or ".." in parts or "\\" in entry.filename or ":" in entry.filename
        if leaves or names.count(entry.filename) > 1:
            raise _refused(path, f"the name {entry.filename!r}", "names inside the folder, each once")
        if entry.is_dir() or stat.S_ISLNK(entry.external_attr >> 16):
            raise _refused(f"{path}: {entry.filename}", "a folder or a link", "plain files only")
    if len(entries) > MOST_FILES or sum(entry.file_size for entry in entries) > MOST_BYTES:
        raise _refused(path, "content of more than 500 MB or 10,000 files", "the tables and figures of a run")


def _refuse_contents(path: Path, manifest: Manifest) -> None:
    """Refuse other files than those of a bundle beside its report, and a bundle without one of them."""
    beside = {name for name in manifest.files if not name.startswith(f"{REPORT}/")}
    locks = {name for name in beside if LOCK_PATTERN.fullmatch(name)}
    needed = {CONFIG, SPLITS, AUDIT}
    expected = f"{', '.join(sorted(needed))}, lock.txt and the files of {REPORT}/"
    found = [(name, "a file of no bundle") for name in sorted(beside - locks - needed)]
    found += [(name, "no file") for name in sorted((needed - beside) | (set() if locks else {"lock.txt"}))]
    raise_problems(Problem(f"{path}: {name}", what, expected, MAKE_ANEW) for name, what in found)


def _manifest(path: Path, archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo]) -> Manifest:
    if MANIFEST not in entries:
        raise _refused(path, f"no {MANIFEST}", "a bundle of segbench")
    content = _content(path, archive, entries[MANIFEST], entries[MANIFEST].file_size)
    try:
        stated = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _refused(f"{path}: {MANIFEST}", "no JSON", "the list of a bundle's files") from error
    if isinstance(stated, dict) and isinstance(stated.get("format"), int) and stated["format"] > 1:
        raise _refused(f"{path}: {MANIFEST}", f"format {stated['format']}", "format 1; use a newer segbench")
    try:
        return Manifest.model_validate(stated)
    except ValidationError as error:
        raise _refused(f"{path}: {MANIFEST}", "another form", "the list of a bundle's files") from error


def _content(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, size: int) -> bytes:
    """Read one file, never more than it may hold."""
    try:
        with archive.open(entry) as stream:
            content = stream.read(size + 1)
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise _refused(f"{path}: {entry.filename}", in_words(error), "a file that is whole") from error
    if len(content) != size:
        raise _refused(f"{path}: {entry.filename}", f"{len(content)} bytes or more", f"{size} bytes")
    return content


@dataclass(frozen=True)
class Checked:
    """An unpacked bundle: its folder, manifest and resolved configs, and what contradicts its scores and record.

    configs: one, or that of each site that the bundle joins.
    """

    folder: Path
    manifest: Manifest
    configs: tuple[dict[str, Any], ...]
    differences: tuple[str, ...]

    @property
    def report(self) -> Path:
        """The folder of the rendered report."""
        return self.folder / REPORT


def differences(path: Path) -> list[str]:
    """Return what in a bundle does not follow from its scores and record, or contradicts them; empty when all agrees.

    Raises:
        InputError: as `opened`, or a table of the bundle cannot be read.
    """
    with checked(path) as found:
        return list(found.differences)


@contextmanager
def checked(path: Path) -> Iterator[Checked]:
    """Unpack a bundle into a temporary folder, compare its parts, and yield what was found.

    Raises:
        InputError: as `opened`, or a table of the bundle cannot be read.
    """
    with opened(path) as (folder, manifest):
        try:
            found = _compared(folder, manifest)
        except InputError as error:  # it names files of a folder that nobody knows
            raise InputError(
                Problem(f"{path}: {item.where.removeprefix(f'{folder}/')}", item.found, item.expected, MAKE_ANEW)
                for item in error.problems
            ) from error
        yield found


def _compared(folder: Path, manifest: Manifest) -> Checked:
    """Compare the parts of an unpacked bundle; raises `InputError` when one of them cannot be read."""
    report = folder / REPORT
    record = read_run_record(report / RUN_RECORD)
    config = _json(folder / CONFIG)
    configs = _configs(config)
    found = [f"{REPORT}/{line}" for line in differing_files(report)]
    if record.run != manifest.run:
        found.append(f"{MANIFEST} names the run {manifest.run}, run.json {record.run}")
    if content_hash(config) != record.config_sha256:
        found.append("config.json is not the config that run.json names")
    rows = read_scores(report / SCORES)
    folds = {fold for item in configs for fold in item["data"]["folds"]}
    splits = read_splits(folder / SPLITS)
    tested = {
        (fold, task, case)
        for fold, tasks in splits.folds.items()
        for task in tasks
        for case in tasks[task].test
        if fold in folds  # a splits file holds all folds of its protocol, a run may ask for some
    }
    scored = set(zip(rows["fold"], rows["task"], rows["case"], strict=True))
    if scored != tested:
        found.append(f"{len(scored ^ tested)} cases are scored and not in the test sides of splits.json, or reverse")
    found += _contradicted_splits(splits, record, configs, folds)
    try:
        found += _contradicted_config(configs, record, set(rows["seed"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _refused(CONFIG, "another form", "a resolved config, or those of the joined sites") from error
    try:
        findings = list(csv.reader(io.StringIO((folder / AUDIT).read_text(encoding="utf-8"))))
    except (ValueError, csv.Error) as error:
        raise _refused(AUDIT, in_words(error), "a CSV table") from error
    stated = [list(item.model_dump().values()) for item in record.audit.findings]
    if findings[:1] != [list(Finding.model_fields)] or sorted(findings[1:]) != sorted(stated):
        found.append("audit.csv does not hold the findings of run.json")
    return Checked(folder, manifest, configs, tuple(found))


def _contradicted_splits(
    splits: Splits, record: RunRecord, configs: Iterable[dict[str, Any]], folds: Collection[int]
) -> Iterator[str]:
    """Yield what of splits.json contradicts the configs and the numbers of training cases in run.json."""
    if any(item["data"].get("protocol") != splits.protocol for item in configs):
        yield f"splits.json is by the protocol {splits.protocol}, config.json by another"
    of_task: dict[str, list[Sides]] = {}
    for fold, tasks in splits.folds.items():
        for task, sides in tasks.items():
            twice = [case for case, count in Counter(sides.train + sides.test).items() if count > 1]
            if twice:
                yield f"splits.json has {len(twice)} cases of {task}, fold {fold}, twice or on both sides"
            if fold in folds:
                of_task.setdefault(task, []).append(sides)
    for scored in record.tasks:
        known = scored.n_train + scored.n_validation
        if known not in {len(sides.train) for sides in of_task.get(scored.name, [])}:
            yield f"splits.json has another number of training cases of {scored.name} than run.json"


def _contradicted_config(configs: Sequence[dict[str, Any]], record: RunRecord, seeds: Collection[int]) -> Iterator[str]:
    """Yield what the configs ask for and the report does not have, or has otherwise; a key that is absent asks nothing.

    seeds: those of the score rows.
    """
    asked = {seed for item in configs for seed in _seeds(item)}
    if asked - set(seeds):
        yield f"config.json asks for the seeds {sorted(asked)}, scores.csv has {sorted(seeds)}"
    methods = {(item.experiment, item.model) for item in (*record.methods, *record.self_supervised)}
    for experiment in ("upstream", "downstream"):
        for section in (item.get(experiment) or {} for item in configs):
            for entry in (entry for key in LISTS_OF_METHODS for entry in section.get(key, ())):
                name = entry.get("id") or entry["name"] if isinstance(entry, dict) else entry
                if (experiment, name) not in methods:
                    yield f"config.json asks for {experiment}/{name}, and run.json has no such method"
    for metric, handling in record.missing_masks.items():
        if any(handling != handling_of(metric, item["missing_masks"]) for item in configs if "missing_masks" in item):
            yield f"run.json has another handling of missing masks in {metric} than config.json"
    budget, inference = record.budget, record.inference
    stated: dict[tuple[str, str], Any] = {
        ("statistics", "decision_rule"): record.statistics.decision_rule,
        ("inference", "step"): inference.step,
        ("inference", "mirror_axes"): list(inference.mirror_axes),
        ("training", "iterations_per_task"): budget.iterations_per_task,
        ("training", "batch_size"): budget.batch_size,
        ("network", "patch_size_zyx"): list(budget.patch_size_zyx),
    }
    for (section, key), value in stated.items():
        if any(item.get(section, {}).get(key, value) != value for item in configs):
            yield f"run.json has another {section}.{key} than config.json"


def _seeds(config: Mapping[str, Any]) -> Sequence[int]:
    """Return the seeds of which a config has scores: without a model that is trained or asked anew the first alone."""
    upstream, seeds = config.get("upstream") or {}, config.get("seeds", [])
    external = upstream.get("external", ())
    several = any(entry.get("predict") or "{seed}" in (entry.get("predictions") or "") for entry in external)
    return seeds if upstream.get("models") or config.get("downstream") or several else seeds[:1]


def _configs(content: Any) -> tuple[dict[str, Any], ...]:
    """Return the resolved configs that config.json holds: that of the run, or those of the sites under `joined`."""
    items = content.get(JOINED, [content]) if isinstance(content, dict) else None
    try:
        form = [_Config.model_validate(item) for item in items or ()]
    except (ValidationError, TypeError):
        form = []
    if not form:
        raise _refused(CONFIG, "another form", "a resolved config, or those of the joined sites")
    return tuple(item.model_dump() for item in form)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _refused(path.name, in_words(error), "JSON") from error


def _refused(where: Path | str, found: str, expected: str) -> InputError:
    return input_error(where, found=found, expected=expected, fix=MAKE_ANEW)
