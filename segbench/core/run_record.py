"""run.json: the one model of what a report knows about a run beside its score rows, for its writer and its readers.

Everything that a page, a table or a figure says comes from scores.csv and this record. `scores_sha256` ties the two
files together. Nothing that belongs to one machine (folders, environment, commands) is part of it.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from segbench.core.errors import Problem, input_error, raise_problems, short
from segbench.core.files import write_json
from segbench.core.metric_facts import Rule

FORMAT: Final = 4
"""Version of run.json; it grows when a key that a reader needs is added, or one is removed or means something else."""
MOST_PROBLEMS = 8
FIX = "run `segbench gather` again with this version of segbench, or restore the file"
COMPARED = "cells.csv"
"""A table that `segbench compare` writes into its folder and no report has there."""
SYNTHETIC_NOTICE = "Synthetic data: the volumes were generated; no result here says anything about patients."
SHA256 = r"^[0-9a-f]{64}$"
WEB_ADDRESS = r"^(https?://\S+)?$"

Experiment = Annotated[str, Field(pattern="^(upstream|downstream)$")]
Kind = Literal["universal", "single_task", "external", "transfer", "control", "self_supervised"]
DecisionRule = Literal["mean", "ranks"]


class _Part(BaseModel):
    """Base of every part: unknown keys and loose types are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Method(_Part):
    """One row of a table.

    `recipe` is the training recipe, `none` where nothing is trained here; `recipe_text` says what acts in it. A
    self-supervised objective has the kind self_supervised: it is trained and never scored, so it is no row.
    `variant_of` is the value of `model` of the entry that differs from this one in options alone and has those of the
    card by default; it is empty where the run has none, and for that entry itself.
    `preprocessing` says, task by task, how its images were preprocessed where that is not the tasks' own recipe.
    `differs` says what is not as in the original's training where `fidelity` is `network`.
    """

    experiment: Experiment
    model: str
    initialisation: str
    recipe: str
    recipe_text: str
    title: str
    kind: Kind
    fidelity: str
    options_text: str
    citation: str
    url: str = Field(pattern=WEB_ADDRESS)
    variant_of: str = ""
    preprocessing: str = ""
    differs: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Model and initialisation: the method's name within an experiment."""
        return self.model, self.initialisation

    @property
    def trained(self) -> bool:
        """True for methods that compete; controls bound the scale and are not ranked."""
        return self.kind != "control"


class ScoredStructure(_Part):
    """A structure of a task; the surface tolerance is in millimetres."""

    name: str
    lesion: bool
    tolerance_mm: float


class ScoredTask(_Part):
    """One column of a table; n_test, n_train and n_validation count cases, n_test over all folds.

    `n_validation` are training cases that no method learnt from; they are not counted in `n_train`.
    """

    name: str
    title: str
    experiment: Experiment
    modality: str
    structures: tuple[ScoredStructure, ...]
    n_test: int
    n_train: int
    n_validation: int = 0
    spacing_is_nominal: bool
    synthetic: bool
    licence: str
    citation: str


class Curve(_Part):
    """Iterations and losses of one training job, at most a few hundred means of consecutive log lines."""

    iteration: tuple[float, ...]
    loss: tuple[float, ...]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.iteration) != len(self.loss):
            raise ValueError(f"as many losses as iterations ({len(self.iteration)}), not {len(self.loss)}")
        return self


class ValidationDice(_Part):
    """Dice (0 to 1) of each task on training cases that were held out of the training, after some of its steps.

    `cases` counts those of each task. `dice` has a row per step with a value per task, None where nothing was to be
    compared. `seen_dice` is that of as many cases that were trained on, after the last step; empty when it was not
    measured. `seconds` is what measuring took; it is no part of the training's.
    """

    tasks: tuple[str, ...]
    cases: tuple[int, ...]
    steps: tuple[int, ...]
    dice: tuple[tuple[float | None, ...], ...]
    seen_dice: tuple[float | None, ...] = ()
    seconds: float

    @model_validator(mode="after")
    def _one_row_per_step(self) -> Self:
        size = len(self.tasks)
        if len(self.dice) != len(self.steps) or {size} != {len(self.cases), *map(len, self.dice)}:
            raise ValueError(f"{len(self.steps)} rows of {size} values, and {size} counts of cases")
        if self.seen_dice and len(self.seen_dice) != size:
            raise ValueError(f"{size} values of cases that were trained on, or none")
        return self


class PromptSimilarity(_Part):
    """Cosine (-1 to 1) between the prompt channels of every two tasks, a matrix tasks x tasks for each of the steps."""

    tasks: tuple[str, ...]
    steps: tuple[int, ...]
    cosine: tuple[tuple[tuple[float, ...], ...], ...]

    @model_validator(mode="after")
    def _one_matrix_per_step(self) -> Self:
        size = len(self.tasks)
        square = all(len(matrix) == size and all(len(row) == size for row in matrix) for matrix in self.cosine)
        if len(self.cosine) != len(self.steps) or not square:
            raise ValueError(f"{len(self.steps)} matrices of {size} x {size} numbers")
        return self


class WeightsMatch(_Part):
    """What the network took from pre-trained weights: names of tensors by outcome, fraction of parameters (0..1).

    `probe` holds mean, standard deviation, smallest and largest logit on a fixed input after loading; it is empty when
    nothing was probed. `sha256` is empty for a source without a file.
    """

    source: str
    format: str
    sha256: str
    fraction: float
    matched: tuple[str, ...]
    resized: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    reasons: dict[str, str] = {}
    probe: tuple[float, ...] = ()


class Attempt(_Part):
    """What one process of a training computed with: from step `first_step` on, on the device of this name."""

    first_step: int
    device: str
    mode: str
    precision: str
    compiled: bool = False
    threads: int
    processes: int = 1
    torch: str

    def __str__(self) -> str:
        return f"{self.device} ({self.precision}, mode {self.mode}, PyTorch {self.torch})"


class JobRecord(_Part):
    """One training job with its evaluation, or one evaluated control.

    Durations are in seconds, `started` and `finished` in seconds since 1970.
    `train_seconds` holds all attempts of a resumed job; `process_seconds` is at least that much. `batch_size` is that
    of training, 0 where nothing is trained here. `forward_flops` are those of a forward pass of one patch, 0 where they
    were not counted. `tuned_learning_rate` is what a job with the recipe tuned chose; its seconds and iterations are
    those of its trials as well. `attempts` are the processes that trained it, none where nothing is trained here.
    """

    job: str
    experiment: Experiment
    model: str
    initialisation: str
    recipe: str
    batch_size: int
    scope: str
    fold: int
    seed: int
    status: Literal["ok", "failed"]
    reason: str
    train_seconds: float
    predict_seconds: float
    score_seconds: float
    process_seconds: float
    iterations: int
    parameters: int
    forward_flops: int = 0
    training_code: str | None
    model_code: str | None
    match: WeightsMatch | None
    device: str
    attempts: tuple[Attempt, ...] = ()
    started: float
    finished: float
    curve: Curve | None
    prompt_similarity: PromptSimilarity | None = None
    tuned_learning_rate: float | None = None
    validation: ValidationDice | None = None


class SkippedCell(_Part):
    """A method that a task cannot be asked of, and why."""

    experiment: Experiment
    model: str
    initialisation: str
    recipe: str
    task: str
    reason: str


class Finding(_Part):
    """One leak, as audit.csv holds it; `name` is what a person lists to accept it.

    Lists of cases are separated by spaces.
    """

    name: str
    kind: str
    relation: str
    fold: str
    train_task: str
    train_cases: str
    test_task: str
    test_cases: str
    evidence: str
    accepted: Literal["True", "False"] = "False"

    @property
    def is_accepted(self) -> bool:
        """Whether a person named it in `data.accept_leaks`."""
        return self.accepted == "True"


class Audit(_Part):
    """What the leak audit compared and found, and which lists were changed."""

    cases: int
    findings: tuple[Finding, ...]
    changes: tuple[str, ...]

    def names(self) -> set[str]:
        """Return what was found, each once however many folds it concerns."""
        return {finding.name for finding in self.findings}


class Provenance(_Part):
    """Who made the run, with what and when; the host is an operating system and a processor type."""

    commit: str
    versions: dict[str, str]
    host: str
    started: str
    finished: str


class InferenceSettings(_Part):
    """Overlap and mirroring of the sliding windows."""

    step: float
    mirror_axes: tuple[int, ...]


class Budget(_Part):
    """How much training a job was given; the patch is in voxels z, y, x."""

    iterations_per_task: int
    downstream_iterations_per_task: int
    batch_size: int
    patch_size_zyx: tuple[int, ...]


class StatisticsSettings(_Part):
    """How a report compares: `decision_rule` is the one test that may name a better method (docs/statistics.md)."""

    decision_rule: DecisionRule = "mean"


class Picture(_Part):
    """A picture of a test case in the folder `pictures`; `text` holds the values of the methods that it shows.

    may_be_shown: the card of the data set permits it, so that the page embeds it. slices_xyz: index of the sagittal,
    coronal and axial plane that is drawn, on the grid turned to RAS. scores: 'model/initialisation' -> value in the
    metric's own unit, methods without a value left out.
    """

    experiment: str
    task: str
    case: str
    choice: str
    file: str = Field(pattern=r"^\w+\.png$")
    sha256: str = Field(pattern=SHA256)
    may_be_shown: bool
    text: str
    slices_xyz: tuple[int, ...] = ()
    scores: dict[str, float] = {}


class RunRecord(_Part):
    """Methods, tasks, jobs, costs and provenance of one finished run.

    `missing_masks` maps each metric to what a row of each status counts as. `identities` maps a job to the digest of
    what it was made from; it may be empty. `phases` maps a phase to process seconds.
    """

    format: Literal[4] = FORMAT
    run: str
    description: str
    synthetic: bool
    protocol: str
    config_sha256: str = Field(pattern=SHA256)
    scores_sha256: str = Field(pattern=SHA256)
    provenance: Provenance
    methods: tuple[Method, ...] = Field(min_length=1)
    self_supervised: tuple[Method, ...]
    tasks: tuple[ScoredTask, ...] = Field(min_length=1)
    jobs: tuple[JobRecord, ...] = Field(min_length=1)
    identities: dict[str, str] = {}
    missing_masks: dict[str, dict[str, float | Rule]]
    statistics: StatisticsSettings = StatisticsSettings()
    skipped: tuple[SkippedCell, ...]
    audit: Audit
    phases: dict[str, float]
    wall_seconds: float
    inference: InferenceSettings
    budget: Budget
    notices: tuple[str, ...]
    pictures: tuple[Picture, ...] = ()

    def trained_on(self) -> list[str]:
        """Return each device that trained, with how it computed where a job says so."""
        trained = (job for job in self.jobs if job.iterations)
        return list(dict.fromkeys(str(used) for job in trained for used in job.attempts or [job.device]))

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        """Refuse names that are there twice and names that point to nothing."""
        methods = [_row_of(item) for item in self.methods + self.self_supervised]
        jobs = [item.job for item in self.jobs]
        listed: dict[str, list[str]] = {
            "method": ["/".join(name) for name in methods],
            "task": [f"{item.experiment}/{item.name}" for item in self.tasks],
            "job": jobs,
        }
        for word, names in listed.items():
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise ValueError(f"each {word} once; there twice: {', '.join(twice)}")
        used = {_row_of(job) for job in self.jobs} | {_row_of(cell) for cell in self.skipped}
        strangers = sorted(used - set(methods))
        if strangers:
            raise ValueError(f"methods of jobs and skipped cells among `methods`; {'/'.join(strangers[0])} is not")
        unknown = sorted(self.identities.keys() - set(jobs))
        if unknown:
            raise ValueError(f"identities of jobs of this run; {unknown[0]} is none")
        return self


def _row_of(item: Method | JobRecord | SkippedCell) -> tuple[str, str, str, str]:
    return item.experiment, item.model, item.initialisation, item.recipe


def write_run_record(path: Path | str, record: RunRecord) -> None:
    """Write run.json atomically; the same record gives the same bytes."""
    write_json(path, record.model_dump(mode="json"))


def read_run_record(path: Path | str) -> RunRecord:
    """Read run.json.

    Raises:
        InputError: the file is missing, truncated, of another version, or does not hold what `gather` writes; each
            problem names the file with the key, what was found and what was expected.
    """
    content = _content(Path(path))
    version = content.get("format", "no format version (an older segbench wrote it)")
    if version != FORMAT or isinstance(version, bool):
        raise input_error(path, found=version, expected=f"format {FORMAT}", fix=FIX)
    try:
        return RunRecord.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise_problems(_problems(Path(path), error))
        raise AssertionError("a validation error without a problem") from error


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        if isinstance(error, FileNotFoundError) and (path.parent / COMPARED).exists():
            raise input_error(
                path.parent,
                found="a folder that `segbench compare` wrote, which has no run record",
                expected="a folder results/<run> or a report of a run",
                fix="run the same `segbench compare` again into another folder: equal files check this one",
            ) from error
        raise input_error(
            path,
            found=error.strerror or type(error).__name__,
            expected="the record of a finished run",
            fix="name a folder results/<run> that `segbench gather` has filled",
        ) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested without end
        raise input_error(path, found=f"not JSON ({short(error)})", expected="JSON", fix=FIX) from error
    if not isinstance(content, dict):
        raise input_error(path, found=f"a {type(content).__name__}", expected="a record", fix=FIX)
    return content


def _problems(path: Path, error: ValidationError) -> list[Problem]:
    listed = error.errors(include_url=False, include_context=False)
    problems = [
        Problem(f"{path}: {_where(item['loc'])}", _found(item), _expected(item), FIX) for item in listed[:MOST_PROBLEMS]
    ]
    rest = len(listed) - MOST_PROBLEMS
    return problems + ([Problem(str(path), f"{rest} more problems", "none", FIX)] if rest > 0 else [])


def _where(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "the whole record"


def _found(item: Any) -> str:
    if item["type"] == "missing":
        return "no such key"
    if item["type"] == "value_error":
        return "parts that do not agree"
    text = repr(item["input"])
    return text if len(text) <= 60 else f"{text[:57]}..."


def _expected(item: Any) -> str:
    if item["type"] == "missing":
        return f"the key {item['loc'][-1]}"
    if item["type"] == "extra_forbidden":
        return f"no key {item['loc'][-1]}"
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return message[0].lower() + message[1:]
