"""The identity of a result: digests of all that it was made from, by name, written beside it.

Equal identities mean that making the result again would give it again. What cannot change a result is not part of it:
titles, citations, tolerances, other tasks and folds, `accept_*`, where the data lie, how often a state is saved,
how long a job may take.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.core import cards
from segbench.core.code import ROOT, code_digest, mentions
from segbench.core.errors import InputError, input_error
from segbench.core.files import sha256_of
from segbench.core.provenance import content_hash
from segbench.core.task import Task
from segbench.core.vocabulary import FROM_SCRATCH
from segbench.experiment import weights
from segbench.experiment.config import Config, Training
from segbench.experiment.jobs import Job, mask_folders

INITIALISE = "segbench/training/initialise.py"
TRAINED = "segbench/evaluation/trained.py"
OBJECTIVE = "segbench/training/objective.py"
TRAINING = "segbench/training/loop.py"
TUNING = "segbench/training/tuning.py"
VALIDATION = "segbench/training/validation.py"
"""Measures beside the training and moves no weight: no part of its code, but of that of tuning."""
PREDICTION = {
    "network": "segbench/evaluation/predictors/network.py",
    "control": "segbench/evaluation/predictors/control.py",
    "masks": "segbench/evaluation/predictors/masks.py",
}
EXTERNAL = "segbench/evaluation/external_commands.py"
SCORING = (
    "segbench/metrics",
    "segbench/core/metric_facts.py",
    "segbench/evaluation/rows.py",
    "segbench/data/readers.py",
)
TRAINING_CODE_PARTS = ("training code", "tuning code", "model code", "initialisation code")
"""What `allow_mixed_training_code` leaves out of comparisons; code that predicts and scores always counts."""
NETWORK_KEYS = ("patch_multiple",)
"""Keys of a card that the network is built from."""
WITHOUT_EFFECT = ("save_every_seconds", "time_limit_hours")
"""Keys of `training` that change no weight."""
DIGITS = 16


@dataclass(frozen=True)
class Identity:
    """Name of a part -> its digest, or its value where that is short."""

    parts: Mapping[str, str]

    @property
    def digest(self) -> str:
        """One digest over all parts."""
        return content_hash(dict(self.parts))[:DIGITS]

    def differences(self, other: Identity, *, code_counts: bool = True) -> list[str]:
        """Return the names of the parts that differ, sorted; an absent part differs from any.

        Args:
            other: the identity to compare with.
            code_counts: whether other training code is a difference (`allow_mixed_training_code` says that it is none).

        Returns:
            Names of parts; empty when the identities are equal.
        """
        names = self.parts.keys() | other.parts.keys()
        kept = (name for name in names if code_counts or name not in TRAINING_CODE_PARTS)
        return sorted(name for name in kept if self.parts.get(name) != other.parts.get(name))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"digest": self.digest, "parts": dict(self.parts)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: object) -> Identity:
        """Return the identity that a file holds; raises `InputError` when it is none, or was edited."""
        try:
            found = cls({str(name): str(value) for name, value in content["parts"].items()})
            same = content["digest"] == found.digest
        except (KeyError, TypeError, AttributeError) as error:
            raise _damaged(where, f"another form ({type(error).__name__})") from error
        if not same:
            raise _damaged(where, "parts that do not match their digest")
        return found


def _damaged(where: object, found: str) -> InputError:
    return input_error(where, found=found, expected="an identity as segbench wrote it", fix="delete it and run again")


def part(content: object) -> str:
    """Return the digest of anything that JSON can hold."""
    return content_hash(content)[:DIGITS]


def training_settings_identity(config: Config, job: Job) -> Identity:
    """Return what config and code say of a training; `JobContext.identity` adds the cases and the source's identity."""
    if job.external:
        external = config.external(job.model)
        commands = {"commands": part([external.train, external.environment, *external.told.items()])}
        return Identity(
            commands | {"tasks": _task_parts(job.tasks(config)), "fold and seed": f"{job.fold}, {job.seed}"}
        )
    own = cards.code_of(config.model_entry(job.model).name, objective=job.self_supervised)
    entry, card = job.entry(config), config.card(job.model)
    options = {name: item["default"] for name, item in card["options"].items()} | entry.options
    facts = {key: card[key] for key in NETWORK_KEYS if key in card}
    training = config.training_of(job.experiment, entry, job.initialisation)
    parts = {
        "model": part([entry.name, {name: _option(value) for name, value in options.items()}, facts]),
        "model code": code_digest(own, *([OBJECTIVE] if job.self_supervised else [])),
        "training": training_part(training),
        "training code": code_digest(TRAINING, without=(INITIALISE, OBJECTIVE, VALIDATION)),
        "network": part(config.network_of(job.experiment, entry, job.scope).model_dump(mode="json")),
        "tasks": _task_parts(job.tasks(config), [own]),
        "fold and seed": f"{job.fold}, {job.seed}",
    }
    if training.tuning is not None:
        parts["tuning code"] = code_digest(TUNING, VALIDATION, without=(TRAINING, INITIALISE, OBJECTIVE))
    return Identity(parts | _initialisation_parts(config, job))


def training_part(training: Training) -> str:
    """Return the digest of all settings that change weights."""
    return part({name: value for name, value in training.effective().items() if name not in WITHOUT_EFFECT})


def _option(value: Any) -> Any:
    """Return the value of an option, with the digest of the file that it names, if it names one."""
    return [value, sha256_of(value)] if isinstance(value, str) and value and Path(value).is_file() else value


def _initialisation_parts(config: Config, job: Job) -> dict[str, str]:
    """Return the parts of pre-trained weights; the identity of a source within the run comes from its own file."""
    if job.experiment != "downstream" or job.control:
        return {}
    item = job.weights(config)
    if item.name in FROM_SCRATCH:
        return {}
    layout = cards.FORMAT_FOLDER.relative_to(ROOT) / f"{item.format}.py"
    source = job.source(config)
    keys = config.card(source.model)["encoder_keys"] if source else []
    card = config.format_cards[item.format]
    facts = [
        item.model_dump(mode="json", exclude={"name", "file", "upstream_recipe", "trained_on", "axes"}),
        keys,
        card["targets"],
        *([weights.axes(config, item), card["intensities"]] if item.file is not None else []),
    ]
    return {
        "pre-trained weights": part(facts),
        "initialisation code": code_digest(INITIALISE, layout.as_posix()),
    }


def _task_parts(tasks: Iterable[Task], code: Iterable[str] = ()) -> str:
    """Return a digest of what a network sees of tasks; structures and tumours only where its own code looks at them."""
    looks_at = {name for path in code for name in ("structures", "tumours") if mentions(path, name)}
    return part([_task_facts(task, looks_at) for task in tasks])


def _task_facts(task: Task, looks_at: Container[str]) -> list[Any]:
    structures = [[item.name, list(item.labels), item.lesion] for item in task.structures]
    return [
        task.name,
        [[channel.name, channel.modality] for channel in task.channels],
        list(task.classes),
        structures if "structures" in looks_at else [],
        list(task.tumours) if "tumours" in looks_at else [],
        bool(task.sides),
    ]


def evaluation_settings_identity(config: Config, job: Job) -> Identity:
    """Return what config and code say of an evaluation; `evaluation.trained` adds weights and test cases."""
    parts = dict(prediction_settings_identity(config, job, job.tasks(config)).parts)
    if job.external and config.external(job.model).predict is None:
        parts["masks"] = part({task: _state_of(folder) for task, folder in mask_folders(config, job).items()})
    return Identity(parts | scoring_parts(config, job.tasks(config)))


def prediction_settings_identity(config: Config, job: Job, tasks: Iterable[Task]) -> Identity:
    """Return what config and code say of predicted label maps.

    Args:
        config: the config.
        job: the job that predicts.
        tasks: those that shape the prediction: all that a network was trained on, the own one elsewhere.
    """
    task_digest = _task_parts(tasks)
    if job.external:
        entry = config.external(job.model)
        commands = part([entry.train, entry.environment, entry.predict, entry.predictions, *entry.told.items()])
        code = code_digest(PREDICTION["masks"], without=(EXTERNAL,))
        return Identity({"commands": commands, "tasks": task_digest, "prediction code": code})
    if job.control:
        code = code_digest(PREDICTION["control"], f"models/controls/{job.model}.py")
        return Identity({"model": job.model, "tasks": task_digest, "prediction code": code})
    inference = config.inference.model_dump(mode="json", exclude={"keep_predictions"})
    own = cards.code_of(config.model_entry(job.model).name, objective=False)
    mirror_sides = config.training_of(job.experiment, job.entry(config)).mirror_sides
    network = config.network_of(job.experiment, job.entry(config), job.scope)
    return Identity(
        {
            "inference": part([inference, network.patch_size_zyx, mirror_sides]),
            "tasks": task_digest,
            "prediction code": code_digest(PREDICTION["network"], own, without=(TRAINING, TRAINED)),
        }
    )


def scoring_parts(config: Config, tasks: Iterable[Task]) -> dict[str, str]:
    """Return what config and code say of the scores of label maps of these tasks."""
    tasks = list(tasks)
    structures = [[task.name, [repr(item) for item in task.structures], task.spacing_is_nominal] for task in tasks]
    protocols = [config.data.protocol_of(task.name) for task in tasks]
    return {
        "metrics": part(list(config.metrics)),
        "structures": part(structures),
        "protocol": part(protocols),
        "scoring code": code_digest(*SCORING),
    }


def _state_of(folder: Path) -> list[list[Any]]:
    """Return names, sizes and times of the files of a folder: a request sees other masks without reading them."""
    if not folder.is_dir():
        return []
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(folder.iterdir())]
