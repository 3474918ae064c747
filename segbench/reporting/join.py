"""Join the bundles of several sites of one experiment, or list what they disagree on.

Sites may differ in the cells that they filled: models, controls, seeds, folds, initialisations. All that makes cells
comparable must agree: splits, protocol, tasks, metrics, handling of missing masks, settings of the config, training
code. A row that two sites have must be the same row.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from segbench.core.errors import InputError, RunFailed, input_error
from segbench.core.paths import AUDIT, CONFIG, RUN_RECORD, SCORES, SPLITS
from segbench.core.provenance import content_hash
from segbench.core.run_record import Method, Provenance, RunRecord, ScoredTask, read_run_record
from segbench.core.vocabulary import KEY_COLUMNS, SCORE_COLUMNS
from segbench.experiment.splits import Splits, read_splits
from segbench.reporting.bundle import JOINED, MANIFEST, REPORT, Checked, checked, csv_text, pack
from segbench.stats.methods import check_complete
from segbench.stats.scores import read_csv_text, validate_rows

ENTRIES = (
    "upstream.models",
    "upstream.self_supervised",
    "upstream.external",
    "downstream.models",
    "downstream.initialisations",
)
"""Keys of a config whose lists sites may differ in; an entry that two sites have must be equal."""
FREE = {
    *("run", "description", "seeds", "upstream.controls", "downstream.controls", "allow_mixed_training_code"),
    *("data.root", "data.cards", "data.folds", "data.split_files", "data.accept_partial", "data.accept_split_files"),
    *("inference.keep_predictions", "training.save_every_seconds", "training.time_limit_hours"),
}
"""Keys that choose cells, or change no result; the content of lists of cases is compared as splits."""
OF_A_MACHINE = ("file", "environment", "predictions")
"""Keys of an entry that name files of a site."""
METHOD_FACTS = ("recipe_text", "kind", "fidelity", "options_text")
TASK_FACTS = ("modality", "structures", "spacing_is_nominal", "synthetic")
FACTS_OF_CASES = {
    "dataset": ["experiment", "task"],
    "patient": ["experiment", "task", "case"],
    "diagonal_mm": ["experiment", "task", "case"],
    "reference_volume_mm3": ["experiment", "task", "case", "structure"],
}
"""Columns of the score table that say something of a task, a case or a structure, by what they are of."""
MEASURED, SAME_NUMBER = ("diagonal_mm", "reference_volume_mm3"), 1e-5
"""Those that are numbers, and the fraction by which two of them may differ: files at two sites may round a spacing in
another way, and it is kept to 1e-6 mm."""
DIGITS = 12
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Site:
    """An unpacked bundle, which agrees with itself."""

    path: Path
    bundle: Checked

    @cached_property
    def record(self) -> RunRecord:
        """What the site's run.json says."""
        return read_run_record(self.bundle.report / RUN_RECORD)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The score table as text."""
        return read_csv_text(self.bundle.report / SCORES)

    @cached_property
    def splits(self) -> Splits:
        """The site's splits, of all folds that its protocol has."""
        return read_splits(self.bundle.folder / SPLITS)

    @cached_property
    def audit(self) -> list[list[str]]:
        """Rows of audit.csv, the header first."""
        text = (self.bundle.folder / AUDIT).read_text(encoding="utf-8")
        return list(csv.reader(io.StringIO(text)))

    def other_texts(self) -> dict[str, str]:
        """Return name -> content of the files of the pinned environment."""
        known = {MANIFEST, CONFIG, SPLITS, AUDIT}
        names = [name for name in self.bundle.manifest.files if name not in known and not name.startswith(REPORT)]
        return {name: (self.bundle.folder / name).read_text(encoding="utf-8") for name in names}


def join_bundles(paths: Sequence[Path], out: Path, *, run: str | None = None) -> list[str]:
    """Write one bundle of all cells of several, unless they disagree.

    Args:
        paths: the bundles, at least two.
        out: the zip file; written whole or not at all.
        run: name of the joined run; default: that of the bundles, or all of theirs in one.

    Returns:
        One line for each disagreement: the fact, and its value in each bundle. Empty when the bundle was written.

    Raises:
        InputError: a file is no bundle that `opened` accepts, or there are fewer than two.
        RunFailed: a bundle is not what its score rows give.
    """
    if len(set(paths)) < 2:
        raise input_error("--join", found=f"{len(set(paths))} bundle", expected="at least two", fix="name the others")
    with ExitStack() as stack:
        sites = []
        for path in paths:
            bundle = stack.enter_context(checked(path))
            if bundle.differences:
                raise RunFailed(f"{path} is not what its score rows give: {'; '.join(bundle.differences)}")
            sites.append(Site(path, bundle))
        found = list(disagreements(sites))
        if found:
            return found
        rows = _joined_rows(sites)
        try:
            check_complete(validate_rows(rows, where="the joined table"), where="the joined table")
        except InputError as error:
            return [problem.line() for problem in error.problems]
        texts = _joined_texts(sites, rows, run or "_".join(dict.fromkeys(site.record.run for site in sites)))
        record = json.loads(texts[RUN_RECORD])
        pack(out, texts, run=record["run"], pseudonymised=sites[0].bundle.manifest.pseudonymised)
    return []


def disagreements(sites: Sequence[Site]) -> Iterator[str]:
    """Yield a line for each fact on which sites disagree, with its value at each."""
    yield from _compared({site.path: _facts_of_all(site) for site in sites}, absent="nothing")
    yield from _compared({site.path: dict(_facts_of_cells(site)) for site in sites})
    for name in FACTS_OF_CASES:
        facts = {site.path: dict(_facts_of_cases(site.rows, name)) for site in sites}
        yield from _compared(facts, same=_are_one_number if name in MEASURED else _are_one_text)
    yield from _compared({site.path: _row_facts(site.rows, sites) for site in sites})


def _are_one_text(values: Collection[str]) -> bool:
    return len(set(values)) <= 1


def _are_one_number(values: Collection[str]) -> bool:
    numbers = [float(text) for value in values for text in value.split(", ")]
    return max(numbers) - min(numbers) <= SAME_NUMBER * max(numbers)


def _compared(
    facts: Mapping[Path, Mapping[str, str]],
    *,
    absent: str | None = None,
    same: Callable[[Collection[str]], bool] = _are_one_text,
) -> Iterator[str]:
    """Yield a line for each fact whose values differ; absent: what a site has that lacks it, None if it may lack it."""
    for name in dict.fromkeys(name for own in facts.values() for name in own):
        values = {path: own.get(name, absent) for path, own in facts.items()}
        known = {path: value for path, value in values.items() if value is not None}
        if not same(known.values()):
            yield f"{name}: " + "; ".join(f"{path} has {value}" for path, value in known.items())


def _facts_of_all(site: Site) -> dict[str, str]:
    """Return the facts that every site must have with the same value."""
    record = site.record
    facts = {
        "ids of cases": "pseudonyms" if site.bundle.manifest.pseudonymised else "those of the data sets",
        "protocol": record.protocol,
        "metrics": ", ".join(sorted(set(site.rows["metric"]))),
    }
    for experiment in dict.fromkeys(task.experiment for task in record.tasks):
        names = [task.name for task in record.tasks if task.experiment == experiment]
        facts[f"tasks of {experiment}"] = ", ".join(names)
    for metric, handling in record.missing_masks.items():
        facts |= {f"what {status} counts as in {metric}": str(value) for status, value in handling.items()}
    for key, value in _flat(site.bundle.configs[0]):
        if key not in FREE and key not in ENTRIES:
            facts[f"config {key}"] = json.dumps(value)
    if not any(config.get("allow_mixed_training_code") for config in site.bundle.configs):
        codes = sorted({job.training_code for job in record.jobs if job.training_code})
        facts |= {"training code": ", ".join(codes)} if codes else {}
    return facts


def _flat(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def _facts_of_cells(site: Site) -> Iterator[tuple[str, str]]:
    """Yield (fact, value) of splits, tasks, methods and entries; sites that have the same fact must agree on it."""
    for fold, tasks in site.splits.folds.items():
        for task, sides in tasks.items():
            yield f"split of {task}, fold {fold}", content_hash([sides.train, sides.test])[:DIGITS]
    for task, protocol in site.splits.task_protocols.items():
        yield f"protocol of {task}", protocol
    for item in site.record.tasks:
        facts = item.model_dump(mode="json")
        for name in TASK_FACTS:
            yield f"{name} of the task {item.experiment}/{item.name}", json.dumps(facts[name])
    for method in (*site.record.methods, *site.record.self_supervised):
        for name in METHOD_FACTS:
            yield f"{name} of {'/'.join(_method_key(method))}", getattr(method, name) or "nothing"
    if not any(config.get("allow_mixed_training_code") for config in site.bundle.configs):
        for model in {job.model for job in site.record.jobs}:
            codes = {job.model_code for job in site.record.jobs if job.model == model and job.model_code}
            if codes:
                yield f"code of {model}", ", ".join(sorted(codes))
    own = {job.job for job in site.record.jobs}
    for job in site.record.jobs:
        if job.match and job.match.sha256 and job.match.source not in own:  # weights of no job are those of a file
            yield f"file of {'/'.join((job.experiment, job.model, job.initialisation))}", job.match.sha256[:DIGITS]
    for config in site.bundle.configs:
        for key, value in _flat(config):
            for entry in value if key in ENTRIES and isinstance(value, list) else ():
                yield from _entry_fact(f"config {key}", entry)
    for finding in site.record.audit.findings:
        about = finding.model_dump(exclude={"accepted"})
        yield f"leak {finding.name} ({content_hash(about)[:DIGITS]}) accepted", finding.accepted


def _entry_fact(where: str, entry: Any) -> Iterator[tuple[str, str]]:
    if isinstance(entry, dict):
        own = {name: item for name, item in entry.items() if name not in OF_A_MACHINE}
        recipe = entry.get("recipe") if isinstance(entry.get("recipe"), str) else "own"
        yield f"{where} {entry.get('id') or entry.get('name')} ({recipe} recipe)", json.dumps(own, sort_keys=True)


def _facts_of_cases(rows: pd.DataFrame, name: str) -> Iterator[tuple[str, str]]:
    """Yield (fact, values) of what a column says about a task, case or structure, whatever the method."""
    for labels, values in rows[rows[name] != ""].groupby(FACTS_OF_CASES[name])[name]:
        yield f"{name} of {'/'.join(labels)}", ", ".join(sorted(set(values)))


def _row_facts(rows: pd.DataFrame, sites: Sequence[Site]) -> dict[str, str]:
    """Return key -> values of the rows whose key another site has as well."""
    keys, columns = list(KEY_COLUMNS), [name for name in SCORE_COLUMNS if name not in KEY_COLUMNS]
    every = pd.concat([site.rows[keys] for site in sites])
    twice = pd.MultiIndex.from_frame(every[every.duplicated()].drop_duplicates())
    own = rows[pd.MultiIndex.from_frame(rows[keys]).isin(twice)].to_dict("records")
    return {
        "row " + "/".join(row[name] for name in keys): ", ".join(f"{name} {row[name]}" for name in columns if row[name])
        for row in own
    }


def _joined_rows(sites: Sequence[Site]) -> pd.DataFrame:
    """Return the rows of all sites, each once, in the order of a score table."""
    rows = pd.concat([site.rows for site in sites]).drop_duplicates(list(KEY_COLUMNS))
    return rows.sort_values(list(KEY_COLUMNS), kind="stable").reset_index(drop=True)


def _joined_texts(sites: Sequence[Site], rows: pd.DataFrame, run: str) -> dict[str, str]:
    """Return name -> content of the files of the joined bundle but the report."""
    config = {JOINED: _distinct((item for site in sites for item in site.bundle.configs), content_hash)}
    splits = _joined_splits([site.splits for site in sites])
    findings = _distinct((row for site in sites for row in site.audit[1:]), tuple)
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([sites[0].audit[0], *findings])
    scores = csv_text(rows)
    record = _joined_record(sites, rows, run).model_copy(
        update={"config_sha256": content_hash(config), "scores_sha256": hashlib.sha256(scores.encode()).hexdigest()}
    )
    texts = {
        SCORES: scores,
        RUN_RECORD: json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True) + "\n",
        CONFIG: json.dumps(config, indent=1, sort_keys=True) + "\n",
        SPLITS: json.dumps(splits | {"sha256": content_hash(splits)}, indent=1) + "\n",
        AUDIT: stream.getvalue(),
    }
    locks = _distinct((text for site in sites for text in site.other_texts().values()), str)
    names = ["lock.txt"] if len(locks) == 1 else [f"lock-{number}.txt" for number in range(1, len(locks) + 1)]
    return texts | dict(zip(names, locks, strict=True))


def _joined_splits(splits: Sequence[Splits]) -> dict[str, Any]:
    folds: dict[str, dict[str, Any]] = {}
    for item in splits:
        for fold, tasks in item.folds.items():
            own = folds.setdefault(str(fold), {})
            own |= {task: {"train": list(sides.train), "test": list(sides.test)} for task, sides in tasks.items()}
    return {
        "protocol": splits[0].protocol,
        "task_protocols": {task: name for item in splits for task, name in item.task_protocols.items()},
        "folds": dict(sorted(folds.items(), key=lambda item: int(item[0]))),
        "changes": _distinct((text for item in splits for text in item.changes), str),
    }


def _joined_record(sites: Sequence[Site], rows: pd.DataFrame, run: str) -> RunRecord:
    """Return what all sites say of methods, jobs and costs; times of phases are sums over the sites."""
    records = [site.record for site in sites]
    methods = _distinct((item for record in records for item in record.methods), _method_key)
    defaults = {_method_key(item): item.variant_of for record in records for item in record.methods if item.variant_of}
    names = {phase for record in records for phase in record.phases}
    findings = _distinct((item for record in records for item in record.audit.findings), lambda item: item)
    audit = records[0].audit.model_copy(
        update={
            "cases": len({case for site in sites for case in site.splits.cases()}),
            "findings": tuple(findings),
            "changes": tuple(_distinct((text for record in records for text in record.audit.changes), str)),
        }
    )
    made_by = ", ".join(f"{record.run} (commit {record.provenance.commit[:DIGITS]})" for record in records)
    notices = [text for record in records for text in record.notices]
    notices.append(f"Joined from {len(sites)} bundles: {made_by}; times are sums over them.")
    notices += _other_versions(records)
    return records[0].model_copy(
        update={
            "run": run,
            "description": " ".join(_distinct((record.description for record in records), str)),
            "synthetic": any(record.synthetic for record in records),
            "provenance": _joined_provenance([record.provenance for record in records]),
            "methods": tuple(
                item.model_copy(update={"variant_of": defaults.get(_method_key(item), "")}) for item in methods
            ),
            "self_supervised": tuple(
                _distinct((item for record in records for item in record.self_supervised), _method_key)
            ),
            "tasks": tuple(_counted(task, rows) for task in records[0].tasks),
            "jobs": tuple(_distinct((job for record in records for job in record.jobs), lambda job: job.job)),
            "identities": {job: text for record in reversed(records) for job, text in record.identities.items()},
            "skipped": tuple(_distinct((cell for record in records for cell in record.skipped), lambda cell: cell)),
            "audit": audit,
            "phases": {name: round(sum(item.phases.get(name, 0.0) for item in records), 1) for name in sorted(names)},
            "wall_seconds": round(sum(record.wall_seconds for record in records), 1),
            "notices": tuple(_distinct(notices, str)),
            "pictures": (),
        }
    )


def _counted(task: ScoredTask, rows: pd.DataFrame) -> ScoredTask:
    own = rows[(rows["experiment"] == task.experiment) & (rows["task"] == task.name)]
    return task.model_copy(update={"n_test": len(own[["fold", "case"]].drop_duplicates())})


def _joined_provenance(items: Sequence[Provenance]) -> Provenance:
    versions = {name: None for item in items for name in item.versions}
    return Provenance(
        commit=_listed(item.commit for item in items),
        versions={name: _listed(item.versions.get(name, "not named") for item in items) for name in versions},
        host=_listed(item.host for item in items),
        started=min(item.started for item in items),
        finished=max(item.finished for item in items),
    )


def _other_versions(records: Sequence[RunRecord]) -> list[str]:
    versions = _joined_provenance([record.provenance for record in records]).versions
    different = [f"{name} {text}" for name, text in versions.items() if "; " in text]
    return [f"The sites computed with other versions, so that roundings differ: {', '.join(different)}."] * bool(
        different
    )


def _listed(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _method_key(method: Method) -> tuple[str, ...]:
    return method.experiment, *method.key, method.recipe


def _distinct(items: Iterable[T], key: Callable[[T], K]) -> list[T]:
    """Return the first item of each key, in order."""
    found: dict[K, T] = {}
    for item in items:
        found.setdefault(key(item), item)
    return list(found.values())
