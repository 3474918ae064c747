"""What the Snakefile asks: the checked config, the jobs' inputs and requests, the owner of the lock.

Imports nothing that an environment with Snakemake alone lacks.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from segbench.core.cards import label_facts
from segbench.core.code import code_digest, files_digest
from segbench.core.devices import device_problems, jobs_at_a_time
from segbench.core.errors import InputError, Problem, RunFailed, input_error, raise_problems, suggestion
from segbench.core.files import sha256_of, write_json
from segbench.core.paths import OUTCOME, RECORD, SCORES, WEIGHTS, RunPaths, preprocessed_name
from segbench.core.provenance import content_hash
from segbench.experiment import jobs, requests
from segbench.experiment.config import parse_config, read_config_file
from segbench.experiment.identity import (
    TRAINING_CODE_PARTS,
    Identity,
    evaluation_settings_identity,
    training_settings_identity,
)
from segbench.experiment.ownership import forget_owner, write_owner
from segbench.experiment.preprocessed_index import read_index
from segbench.experiment.source_files import generation
from segbench.experiment.weights import weights_part

__all__ = ["Run", "forget_owner"]
TORCH_VARIABLE = "SEGBENCH_TORCH"
TORCH_BUILDS = {"cpu": "segbench-cpu.yaml", "cuda": "segbench.yaml"}
DEFAULT_JOBS_PER_SECOND = (100, 1)
"""Jobs, and seconds, of the limit that Snakemake sets itself."""
NVIDIA_DRIVER = Path("/proc/driver/nvidia")
PHANTOM_CODE = ("segbench/data/phantoms/world.py",)
INGEST_CODE = ("segbench/data/ingest.py", "segbench/data/checks.py")
AUDIT_CODE = ("segbench/data/audit",)
PREPROCESS_CODE = ("segbench/data/preprocess.py",)
GATHER_CODE = ("segbench/evaluation/record.py", "segbench/evaluation/rows.py")
REPORTING_CODE = ("segbench/reporting", "segbench/stats")
REPORTING_FOLDERS = (*REPORTING_CODE, "data/published")
REPORTING_FILES = (".j2", ".css", ".js", ".csv", ".html", ".json")
INGEST_KEYS = ("layout", "folder", "channels", "classes", "patient_pattern", "patient_namespace")
"""Keys of a data-set card that change a manifest; titles, citations and what is scored do not."""
SPLIT_KEYS = {"protocol", "task_protocols", "split_seed", "test_fraction", "fold_count", "accept_split_files"}


def shell_prefix(repository: Path) -> str:
    """Return what every shell command of the workflow starts with, for any path of the checkout.

    Snakemake replaces words in braces, so those of the path and of the shell are doubled. A colon would separate two
    entries of PYTHONPATH and raises `InputError`.
    """
    if ":" in str(repository):
        raise input_error(
            repository, found="a colon in the path", expected="a path without it", fix="move the checkout"
        )
    path = literal(shlex.quote(str(repository)))
    return f"set -euo pipefail; export PYTHONPATH={path}${{{{PYTHONPATH:+:$PYTHONPATH}}}}; "


def bound_device_jobs(workflow: Any) -> None:
    """Let a workflow on this machine start as many jobs with a GPU at a time as there are leases.

    Without the bound, jobs that wait for a lease would hold cores and memory. `--resources gpu=N` and a profile come
    first. A cluster bounds its jobs itself; where there is no GPU, nothing but the cores bounds the jobs.
    """
    is_local = workflow.is_main_process and workflow.resource_settings.nodes is None
    count = jobs_at_a_time() if is_local and "gpu" not in workflow.global_resources else None
    if count:
        workflow.register_resource("gpu", count)


def look_for_jobs_when_one_ends(workflow: Any) -> None:
    """Keep Snakemake from looking for jobs once a second more for every job that has ended (snakemake/snakemake#3744).

    Its limit of 100 new jobs a second does that, which no run here reaches; a limit that was asked for stays.
    """
    limit = workflow.scheduler.job_rate_limiter
    if limit is not None and (limit.max_jobs, limit.timespan) == DEFAULT_JOBS_PER_SECOND:
        workflow.scheduler.job_rate_limiter = None


def literal(path: Path | str) -> str:
    """Return a path whose braces Snakemake takes as they are, where it would replace words in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def network_environment(folder: Path) -> Path:
    """Return the conda environment of rules with a network: without the libraries of CUDA where no job can have a GPU.

    That is a machine without NVIDIA's driver that hands no job to SLURM. The environment variable SEGBENCH_TORCH, `cpu`
    or `cuda`, decides otherwise; it is set for the workflow's jobs, so that all use one environment.
    """
    has_devices = sys.platform != "linux" or NVIDIA_DRIVER.exists() or shutil.which("sbatch") is not None
    build = os.environ.setdefault(TORCH_VARIABLE, "cuda" if has_devices else "cpu")
    if build not in TORCH_BUILDS:
        fix = f"set it to one of them, or unset it: {', '.join(TORCH_BUILDS)}"
        raise input_error(TORCH_VARIABLE, found=repr(build), expected="a build of torch", fix=fix)
    return folder / TORCH_BUILDS[build]


def check_config_files(paths: Iterable[str]) -> None:
    """Raise `InputError` when a config file has problems that its content, once read, no longer shows."""
    for path in paths:
        read_config_file(path)


def reporting_digests() -> dict[str, str]:
    """Return the digests of what renders a report: its code, and its templates, styles and published tables."""
    return {
        "code": code_digest(*REPORTING_CODE),
        "templates": files_digest(*REPORTING_FOLDERS, suffixes=REPORTING_FILES),
    }


def _holds_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


class Run:
    """The run that the workflow's config describes, with lookups for its rules."""

    def __init__(self, content: Mapping, warn: Callable[[str], object], *, where: str = "config"):
        """Check the content of a config; problems name `where` it is from, and absent data are handed to `warn`."""
        self.config = parse_config(content, where=where)
        self.paths = RunPaths(self.config.run)
        for problem in self.absent_data():
            warn(problem.line())

    @cached_property
    def job_of(self) -> dict[str, jobs.Job]:
        """Job id -> job."""
        return {job.id: job for job in jobs.all_jobs(self.config)}

    @cached_property
    def training_ids(self) -> list[str]:
        """Ids of all training jobs."""
        return [name for name, job in self.job_of.items() if jobs.is_trained(self.config, job)]

    @cached_property
    def evaluation_ids(self) -> list[str]:
        """Ids of all evaluations."""
        return [name for name, job in self.job_of.items() if not job.self_supervised]

    def write_owner_and_config(self) -> None:
        """Write who owns the lock, and the config, before the first job starts."""
        write_owner(self.config.run)
        self.write_config()

    def write_config(self) -> None:
        """Write the resolved config that every job reads, before the first job starts.

        It is no input of any rule, so that an unrelated edit reruns nothing: each job's request says what it needs.
        """
        write_json(self.paths.config, self.config.model_dump(mode="json"))

    @cached_property
    def task_names(self) -> list[str]:
        """Names of all tasks of the run."""
        return [task.name for task in self.config.tasks]

    def data_files(self, task: str) -> list[str]:
        """Files that say that a task's data are there: the generated data set's description, or nothing."""
        if self.config.data.phantom is None:
            return []
        return [str(self.config.data_root / self.config.dataset_cards[task]["folder"] / "dataset.json")]

    def phantom_files(self) -> list[str]:
        """All descriptions that the generator of the synthetic world writes.

        Snakemake takes words in braces in a path that a rule writes for wildcards and searches paths line by line, so
        such a path raises `InputError`.
        """
        if self.config.data.phantom is not None and set(str(self.config.data_root)) & set("{}\n\r"):
            where, fix = f"data.root: {self.config.data_root}", "name another folder for the synthetic world"
            raise input_error(
                where, found="braces or a line break in the path", expected="a path without them", fix=fix
            )
        return [name for task in self.task_names for name in self.data_files(task)]

    def absent_data(self) -> list[Problem]:
        """Return one problem for each task whose folder is absent, and each list, with the step to get it."""
        if self.config.data.phantom is not None:
            return []
        cards, root = self.config.dataset_cards, self.config.data_root
        folders = {task: root / cards[task]["folder"] for task in self.task_names}
        found = [
            Problem(f"{task}: {folder}", "no folder", "the data set, below data.root", cards[task]["obtain"])
            for task, folder in folders.items()
            if not _holds_files(folder)
        ]
        return found + [
            Problem(str(path), "no file", "a list of data.split_files", "docs/protocols.md says where it is from")
            for path in self.config.split_paths
            if not path.exists()
        ]

    def check_before_jobs(self, environment: Mapping[str, str]) -> None:
        """Raise `InputError` before any job starts: no result is removed for data or devices that are not there.

        A task that was ingested may do without its folder: nothing of it is made anew.
        """
        ingested = {task for task in self.task_names if self.paths.manifest(task).exists()}
        needed = [problem for problem in self.absent_data() if problem.where.partition(":")[0] not in ingested]
        raise_problems([*needed, *device_problems(environment)])

    def preprocessed_of(self, job_id: str) -> list[Path]:
        """Indices of the preprocessed cases that a job reads."""
        tasks = self.job_of[job_id].tasks(self.config)
        return [self.paths.preprocessed(task.name, self.config.own_preprocessing(task)) for task in tasks]

    def source_of(self, job_id: str) -> list[Path]:
        """Outcome of the job that this one starts from, if any."""
        source = self.job_of[job_id].source(self.config)
        return [self.paths.train(source.id) / OUTCOME] if source else []

    def trained_of(self, job_id: str) -> list[Path]:
        """Outcome of the training that an evaluation needs, if any."""
        trained = jobs.is_trained(self.config, self.job_of[job_id])
        return [self.paths.train(job_id) / OUTCOME] if trained else []

    def evaluated_from(self, job_id: str) -> list[Path]:
        """Outcome of the training that an evaluation needs, or the preprocessed cases that a control or masks need.

        A training needs the preprocessed cases of the same tasks, so its outcome stands for them.
        """
        return self.trained_of(job_id) or self.preprocessed_of(job_id)

    def outcomes(self) -> list[Path]:
        """Outcomes of all trainings and evaluations, which the score table and the record of the run are made from."""
        trained = [self.paths.train(job) / OUTCOME for job in self.training_ids]
        return trained + [self.paths.evaluate(job) / OUTCOME for job in self.evaluation_ids]

    def devices_of(self, job_id: str) -> int:
        """Number of GPUs that a job asks for: none for a control and for masks that are given."""
        job = self.job_of[job_id]
        given = job.external and self.config.external(job.model).predict is None
        return 0 if job.control or given else 1

    def request_phantom(self) -> Path:
        """Request for the synthetic world."""
        phantom, cards = self.config.data.phantom, self.config.dataset_cards
        assert phantom is not None
        tasks = {task: {key: cards[task][key] for key in INGEST_KEYS} for task in self.task_names}
        return self._ask("phantom", "world", [phantom.model_dump(), tasks, code_digest(*PHANTOM_CODE)])

    def request_ingest(self, task: str) -> Path:
        """Request for a manifest: what of the card changes it, where the data are, which raw files, and who reads them.

        While the folder is absent, which is warned of, the request stays: Snakemake would delete the manifest first.
        """
        self._check_task(self.paths.manifest(task), task)
        card = self.config.dataset_cards[task]
        root, raw, former = str(self.config.data_root), 0, self.paths.request("ingest", task)
        if self.config.data.phantom is None:
            folder = self.config.data_root / card["folder"]
            if not _holds_files(folder) and former.exists():
                return former
            raw = generation(folder, self.paths.sources(task))
        own = [f"segbench/data/sources/{task}.py"] if card["layout"] == "custom" else []
        code = code_digest(*INGEST_CODE, *own)
        return self._ask("ingest", task, [{key: card[key] for key in INGEST_KEYS}, label_facts(card), root, raw, code])

    def request_split(self) -> Path:
        """Request for the splits: protocols, lists and folds; while a list is absent, the request stays as it was."""
        data, cards, former = self.config.data, self.config.dataset_cards, self.paths.request("split", "splits")
        if former.exists() and not all(path.exists() for path in self.config.split_paths):
            return former
        lists = [sha256_of(path) for path in self.config.split_paths if path.exists()]
        namespaces = {task: cards[task]["patient_namespace"] for task in self.task_names}
        folds = sorted(jobs.folds_to_split(data))
        return self._ask("split", "splits", [data.model_dump(include=SPLIT_KEYS), lists, namespaces, folds])

    def request_audit(self) -> Path:
        """Request for the leak audit: which findings are accepted, and the code that searches."""
        return self._ask("audit", "findings", self._audited())

    def _audited(self) -> list[Any]:
        stated = weights_part(self.config)
        return [self.config.data.accept_leaks, code_digest(*AUDIT_CODE), *([stated] if stated else [])]

    def request_preprocess(self, task: str, other_recipe: str = "") -> Path:
        """Request for preprocessed cases: the recipe with what the config changes of it, and the code.

        Args:
            task: name of the task.
            other_recipe: a recipe that an entry of downstream names; '' for the task's own.
        """
        self._check_task(self.paths.preprocessed(task, other_recipe), task)
        name, card = other_recipe or self.config.task(task).preprocessing, self.config.dataset_cards[task]
        recipe = [name, self.config.preprocessing_recipes.get(name, {}), label_facts(card), card["channels"]]
        asked, settings = preprocessed_name(task, other_recipe), [recipe, code_digest(*PREPROCESS_CODE)]
        return self._ask("preprocess", asked, settings, products=self._absent_cases(task, other_recipe))

    def _absent_cases(self, task: str, recipe: str) -> list[Path]:
        """Return what is gone from the store and an unfinished job may read; a finished run needs no store."""
        try:
            absent = read_index(self.paths.preprocessed(task, recipe)).absent()
        except InputError:  # not preprocessed yet, or damaged, which the jobs that read it say
            return []
        finished = absent and all(requests.read(outcome).get("status") == "ok" for outcome in self.outcomes())
        return [] if finished else absent

    def request_train(self, job_id: str) -> Path:
        """Request for a training: its settings and code, and the next attempt when weights are absent."""
        folder = self.paths.train(job_id)
        job = self._asked_job(folder / OUTCOME, job_id, lambda job: jobs.is_trained(self.config, job))
        products = [folder / RECORD, *([] if job.external else [folder / WEIGHTS])]
        identity = training_settings_identity(self.config, job)
        settings = self._counted(identity) + self._own_preprocessing(job)
        return self._ask("train", job_id, settings, folder / OUTCOME, products)

    def request_evaluate(self, job_id: str) -> Path:
        """Request for an evaluation: its settings and code, and the next attempt when scores are absent."""
        folder = self.paths.evaluate(job_id)
        outcome = folder / OUTCOME
        job = self._asked_job(outcome, job_id, lambda job: not job.self_supervised)
        identity = evaluation_settings_identity(self.config, job)
        went_well = requests.read(outcome).get("status") == "ok"
        products = [folder / SCORES, *([folder / RECORD] if went_well else [])]
        settings = self._counted(identity) + self._own_preprocessing(job)
        return self._ask("evaluate", job_id, settings, outcome, products)

    def _check_task(self, path: Path, task: str) -> None:
        if task not in self.task_names:
            fix = suggestion(task, self.task_names)
            raise input_error(path, found=f"the task {task}", expected="a task of the config", fix=fix)

    def _asked_job(self, outcome: Path, job_id: str, has_it: Callable[[jobs.Job], bool]) -> jobs.Job:
        """Return a job; raises `InputError` for an outcome that a target names and that no job of the config writes."""
        job = self.job_of.get(job_id)
        if job is None or not has_it(job):
            fix = suggestion(job_id, (name for name, item in self.job_of.items() if has_it(item)))
            raise input_error(outcome, found=f"the job {job_id}", expected="a job of the config", fix=fix)
        return job

    def _own_preprocessing(self, job: jobs.Job) -> list[tuple[str, str]]:
        """Return the recipes that are not the tasks' own; the identity holds the addresses of the cases instead."""
        named = ((task.name, self.config.own_preprocessing(task)) for task in job.tasks(self.config))
        return [(f"preprocessing of {task}", recipe) for task, recipe in named if recipe]

    def _counted(self, identity: Identity) -> list[tuple[str, str]]:
        code_counts = not self.config.allow_mixed_training_code
        return sorted(item for item in identity.parts.items() if code_counts or item[0] not in TRAINING_CODE_PARTS)

    def request_gather(self) -> Path:
        """Request for the score table and the record of the run: the whole config, and the cards that it names."""
        config = self.config
        names = [job.model for job in self.job_of.values() if not job.external and not job.control]
        models = {name: config.card(name) for name in dict.fromkeys(names)}
        tasks = {task: config.dataset_cards[task] for task in self.task_names}
        code = code_digest(*GATHER_CODE)
        return self._ask("gather", "scores", [config.model_dump(mode="json"), models, tasks, code])

    def request_report(self) -> Path:
        """Request for the report: the code, templates and styles that render it; a deleted file asks again."""
        return self._ask("report", "page", reporting_digests(), self.paths.rendered, self._rendered_files())

    def _rendered_files(self) -> list[Path]:
        names = requests.read(self.paths.rendered).get("files", {})
        return [self.paths.report / name for name in names]

    def _ask(
        self, rule: str, name: str, settings: Any, outcome: Path | None = None, products: list[Path] | None = None
    ) -> Path:
        digest = content_hash(settings)[:16]
        return requests.ask(self.paths.request(rule, name), digest, outcome=outcome, products=products or ())

    def raise_if_failed(self) -> None:
        """Raise RunFailed naming the failed jobs, so that the command as a whole does not end as a success."""
        failed = jobs.failed_outcomes(self.config)
        if failed:
            raise RunFailed("failed and retried by the next run: " + ", ".join(record["job"] for record in failed))
