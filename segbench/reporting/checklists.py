"""Drafts of two reporting checklists, filled from the record of a run; what a record cannot know is a marked blank.

CLAIM: Mongan, Moy and Kahn, Checklist for Artificial Intelligence in Medical Imaging, Radiology: Artificial
Intelligence 2020;2(2):e200029, with its item numbers. MICCAI: the reproducibility checklist that the conference asks
authors for, after that of Pineau et al., in its order. The items are named in words of our own: fill in the forms of
the journal or conference.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from segbench.core.run_record import RunRecord, ScoredTask
from segbench.core.vocabulary import TUNED

BLANK = "**TO FILL IN**"
MARKUP = re.compile(r"([\\`*_\[\]#|~])")
HEAD = """\
# Checklist drafts: {run}

Filled from `run.json` of the run `{run}` (commit {commit}). {filled} of {total} items have a text from the record. The
others are marked {blank}: the record does not hold them. Check every text before you submit it. The update of
CLAIM of 2024 has other numbers.
"""
OBTAIN = "python -m segbench list datasets names the step to get each data set."
INTERVALS = "see the tables and the section Methods of the report (docs/statistics.md says how they are computed)"


class Item(NamedTuple):
    """One item: its number or place, what it asks, and the text from the record; an empty text is a blank."""

    number: str
    asks: str
    text: str = ""


def checklists(record: RunRecord) -> str:
    """Return both drafts as Markdown; texts of the run are escaped, so that none of them is markup."""
    parts = {"CLAIM (2020)": _claim(record), "MICCAI reproducibility checklist": _miccai(record)}
    items = [item for part in parts.values() for item in part]
    head = HEAD.format(
        run=_escaped(record.run),
        commit=_escaped(record.provenance.commit),
        filled=sum(bool(item.text) for item in items),
        total=len(items),
        blank=BLANK,
    )
    sections = [f"## {title}\n\n" + "\n".join(map(_line, part)) + "\n" for title, part in parts.items()]
    return "\n".join([head, *sections])


def _line(item: Item) -> str:
    return f"- **{item.number}** {item.asks}: {_escaped(item.text) if item.text else BLANK}"


def _escaped(text: str) -> str:
    """Return text of a run without a line break and with no character that Markdown or HTML gives a meaning."""
    return MARKUP.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _claim(record: RunRecord) -> list[Item]:
    return [
        Item("1", "Title names the AI method and its category"),
        Item("2", "Structured summary of design, methods, results and conclusions"),
        Item("3", "Background, intended use and clinical role"),
        Item("4", "Objectives and hypotheses"),
        Item("5", "Prospective or retrospective", "Synthetic volumes; no patients." if record.synthetic else ""),
        Item("6", "Goal of the study"),
        Item("7", "Data sources", _sources(record)),
        Item("8", "Eligibility, and how, where and when participants or studies were identified"),
        Item("9", "Preprocessing of the data"),
        Item("10", "Selection of subsets of the data"),
        Item("11", "Definitions of data elements", _structures(record)),
        Item("12", "De-identification", "Synthetic volumes; no patients." if record.synthetic else ""),
        Item("13", "Handling of missing data", _missing(record)),
        Item("14", "Definition of the reference standard"),
        Item("15", "Why this reference standard was chosen"),
        Item("16", "Source of the annotations; qualification of annotators"),
        Item("17", "Annotation tools"),
        Item("18", "Variability between and within raters"),
        Item("19", "Intended sample size and how it was determined"),
        Item("20", "Assignment of data to partitions, with proportions", _partitions(record)),
        Item("21", "Level at which partitions are disjoint", _level(record)),
        Item("22", "Description of the models", _models(record)),
        Item("23", "Software libraries, frameworks and packages", _software(record)),
        Item("24", "Initialisation of parameters", _initialisation(record)),
        Item(
            "25",
            "Training with augmentation, hyperparameters and number of models",
            f"{_recipes(record)} {_runs(record)}",
        ),
        Item(
            "26",
            "Selection of the final model",
            "The weights at the end of the training; no model is chosen by its scores.",
        ),
        Item("27", "Ensembling", "None in the models that segbench trains."),
        Item("28", "Metrics of performance", _metrics(record)),
        Item("29", "Statistical measures of significance and uncertainty", f"Decisions and intervals: {INTERVALS}."),
        Item("30", "Robustness or sensitivity analysis", "Ranking variants and rank stability: see the report."),
        Item("31", "Explainability or interpretability, and how it was validated"),
        Item("32", "Testing on external data"),
        Item("33", "Flow of participants or cases, as a diagram"),
        Item("34", "Demographic and clinical characteristics in each partition"),
        Item("35", "Performance on all partitions", "Test cases only: see the report."),
        Item("36", "Estimates of accuracy with their precision", f"Tables with intervals: {INTERVALS}."),
        Item("37", "Analysis of failed cases", _failures(record)),
        Item("38", "Limitations such as bias, uncertainty and generalisability"),
        Item("39", "Implications for practice"),
        Item("40", "Registration number and registry"),
        Item("41", "Where the full protocol can be accessed", _protocol(record)),
        Item("42", "Funding and role of funders"),
    ]


def _miccai(record: RunRecord) -> list[Item]:
    return [
        Item("Models", "Mathematical setting, algorithm, model", _models(record)),
        Item("Models", "Assumptions"),
        Item("Models", "Software framework and version", _software(record)),
        Item("Data", "Statistics such as the number of examples", _partitions(record)),
        Item("Data", "Description of the cohort"),
        Item("Data", "Citations of existing data sets", _sources(record)),
        Item("Data", "Collection of new data with devices, parameters, annotators and quality control"),
        Item("Data", "Link to each public data set", OBTAIN),
        Item("Data", "Whether ethics approval was necessary"),
        Item("Code", "Dependencies", "envs/lock.txt and envs/lock-no-deps.txt pin every package."),
        Item("Code", "Training code", f"segbench at commit {record.provenance.commit}."),
        Item("Code", "Evaluation code", f"segbench at commit {record.provenance.commit}."),
        Item("Code", "Trained models"),
        Item("Code", "Data set that the code needs, or a link to it", OBTAIN),
        Item("Code", "README with a table of results and the command that produces each"),
        Item("Results", "Range, selection and values of hyperparameters", _recipes(record)),
        Item("Results", "Sensitivity to changes of parameters"),
        Item("Results", "Exact number of training and evaluation runs", _runs(record)),
        Item("Results", "How baselines were implemented and tuned", _fidelity(record)),
        Item("Results", "Training, validation and test splits", f"{_partitions(record)} {_level(record)}"),
        Item("Results", "Definition of metrics and statistics", _metrics(record)),
        Item("Results", "Central tendency and variation", f"Means with intervals: {INTERVALS}."),
        Item("Results", "Statistical significance of differences", f"Paired comparisons: {INTERVALS}."),
        Item("Results", "Average run time, or energy", _time(record)),
        Item("Results", "Memory"),
        Item("Results", "Situations in which a method failed", _failures(record)),
        Item("Results", "Computing infrastructure", _infrastructure(record)),
        Item("Results", "Clinical significance"),
    ]


def _joined(words: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(word for word in words if word))


def _named(task: ScoredTask, text: str) -> str:
    return f"{task.title}: {text}" if text else ""


def _sources(record: RunRecord) -> str:
    return _joined(_named(task, f"{task.citation}, licence {task.licence}") for task in record.tasks)


def _structures(record: RunRecord) -> str:
    return _joined(_named(task, ", ".join(item.name for item in task.structures)) for task in record.tasks)


def _missing(record: RunRecord) -> str:
    rules = ", ".join(
        f"{metric}: " + ", ".join(f"{status.replace('_', ' ')} counts as {rule}" for status, rule in handling.items())
        for metric, handling in record.missing_masks.items()
    )
    return f"Every expected case stays in every n. {rules}."


def _partitions(record: RunRecord) -> str:
    counts = _joined(_named(task, _counts(task)) for task in record.tasks)
    chosen = "No validation cases choose a model."
    if any(item.recipe == TUNED for item in record.methods):
        chosen += " A part of the training cases chooses the learning rate of tuned models (docs/recipes.md)."
    return f"Protocol {record.protocol}. Cases: {counts}. {chosen}"


def _counts(task: ScoredTask) -> str:
    validation = f"{task.n_validation} validation, " if task.n_validation else ""
    return f"{task.n_train} training, {validation}{task.n_test} test"


def _level(record: RunRecord) -> str:
    audit = record.audit
    accepted = sum(item.is_accepted for item in audit.findings)
    return (
        "Patients, as the protocol and the data sets state them. The leak audit compared names, patients and images of "
        f"{audit.cases} cases: {len(audit.findings)} findings, {accepted} accepted."
    )


def _models(record: RunRecord) -> str:
    return _joined(f"{item.title} ({item.citation})" for item in record.methods if item.trained and item.citation)


def _fidelity(record: RunRecord) -> str:
    return _joined(f"{item.title}: {item.fidelity}" for item in record.methods if item.trained)


def _software(record: RunRecord) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record.provenance.versions.items())
    trained = _joined(attempt.torch for job in record.jobs for attempt in job.attempts)
    return f"Trained with PyTorch: {trained or 'not recorded'}. Scores gathered with: {versions}."


def _initialisation(record: RunRecord) -> str:
    return _joined(f"{item.title}: {item.initialisation}" for item in record.methods if item.trained)


def _recipes(record: RunRecord) -> str:
    budget = record.budget
    texts = _joined(f"recipe {item.recipe}: {item.recipe_text}" for item in record.methods if item.trained)
    patch = " x ".join(map(str, budget.patch_size_zyx))
    return (
        f"{budget.iterations_per_task} iterations per upstream task, {budget.downstream_iterations_per_task} per "
        f"downstream task, batch {budget.batch_size}, patch {patch} voxels (z, y, x); {texts}."
    )


def _runs(record: RunRecord) -> str:
    trained = [job for job in record.jobs if job.iterations]
    seeds, folds = {job.seed for job in trained}, {job.fold for job in trained}
    return (
        f"{len(trained)} trainings with {len(seeds)} seed(s) and {len(folds)} fold(s); each is evaluated once on its "
        "test cases."
    )


def _metrics(record: RunRecord) -> str:
    names = ", ".join(record.missing_masks)
    return f"{names} (docs/metrics.md defines them). Decision rule: {record.statistics.decision_rule}."


def _failures(record: RunRecord) -> str:
    failed = Counter(job.reason for job in record.jobs if job.status == "failed")
    text = _joined(f"{reason} ({count} job(s))" for reason, count in failed.items())
    return f"Failed jobs: {text or 'none'}. Missed structures and the worst cases: see the report."


def _protocol(record: RunRecord) -> str:
    return f"The resolved config with SHA-256 {record.config_sha256}, in the bundle of the run."


def _time(record: RunRecord) -> str:
    trained = [job for job in record.jobs if job.iterations]
    if not trained:
        return ""
    hours = sum(job.train_seconds for job in trained) / len(trained) / 3600
    return f"{hours:.2g} hours per training on average over {len(trained)} trainings; by method: see the report."


def _infrastructure(record: RunRecord) -> str:
    return f"Trained on: {_joined(record.trained_on()) or 'nothing'}. Gathered on: {record.provenance.host}."
