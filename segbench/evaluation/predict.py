"""Predict images of the user with a trained network; tasks that are preprocessed alike share one encoding.

Axis legend: C channel, X Y Z native.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from models.interface import SegmentationModel
from segbench.core.errors import Problem, input_error, raise_problems, suggestion
from segbench.core.task import Task
from segbench.data.checks import check_image
from segbench.data.geometry import Geometry, write_prediction
from segbench.data.preprocess import preprocessed_image
from segbench.data.preprocessing_recipes import Intensities, PreprocessingRecipe, preprocessing_recipe
from segbench.data.readers import read_channels
from segbench.evaluation.predictors.network import windows_of
from segbench.experiment.config import Config
from segbench.experiment.context import JobContext
from segbench.experiment.jobs import training_jobs
from segbench.inference.overlap import overlapped
from segbench.inference.sliding_window import predict_labels

Paths = Sequence[Path]
"""The files of one image: one per channel in the order of the tasks' cards, or one 4D file."""


def trained_job(config: Config, job_id: str) -> JobContext:
    """Return the context of a job whose network is trained here; another id raises `InputError` with a suggestion."""
    jobs = {job.id: job for job in training_jobs(config) if not job.external and not job.self_supervised}
    if job_id not in jobs:
        raise input_error("--job", found=job_id, expected="a training job of this run", fix=suggestion(job_id, jobs))
    return JobContext(config, jobs[job_id])


def asked_tasks(context: JobContext, names: Sequence[str]) -> list[Task]:
    """Return the named tasks of a job, or all when none is named; unknown names raise `InputError`."""
    known = {task.name: task for task in context.tasks}
    raise_problems(
        Problem(f"tasks of {context.job.id}", repr(name), "a task of the job", suggestion(name, known))
        for name in names
        if name not in known
    )
    return [known[name] for name in dict.fromkeys(names or known)]


def checked_images(images: Sequence[Paths], tasks: Sequence[Task]) -> list[str]:
    """Check every image against the channels of every task and return the notices; problems are raised at once."""
    found = [
        check_image(paths, list(modalities))
        for paths in images
        for modalities in dict.fromkeys(tuple(channel.modality for channel in task.channels) for task in tasks)
    ]
    raise_problems(dict.fromkeys(problem for problems, _ in found for problem in problems))
    return list(dict.fromkeys(notice for _, notices in found for notice in notices))


@dataclass(frozen=True)
class PreprocessedImage:
    """An image as some tasks see it: images_CZYX (float32), and the way back to its native grid."""

    tasks: tuple[Task, ...]
    images_CZYX: np.ndarray
    geometry: Geometry


def preprocessed_images(context: JobContext, paths: Paths, tasks: Sequence[Task]) -> list[PreprocessedImage]:
    """Read one image and preprocess it once for all tasks with the same recipe, modalities and mirrored axes."""
    images_CXYZ, affine = read_channels(paths)
    recipes = {task.name: _recipe(context, task) for task in tasks}

    def treatment(task: Task) -> str:
        return repr((recipes[task.name], [channel.modality for channel in task.channels], bool(task.sides)))

    found = []
    for _, group in groupby(sorted(tasks, key=treatment), key=treatment):
        alike = tuple(group)
        geometry, images_CZYX = preprocessed_image(images_CXYZ, affine, alike[0], recipes[alike[0].name])
        found.append(PreprocessedImage(alike, images_CZYX, geometry))
    return found


def predict_image(
    model: SegmentationModel, context: JobContext, images: Sequence[PreprocessedImage]
) -> list[tuple[Task, np.ndarray]]:
    """Return (task, labels_XYZ on the native grid) for every task of one image, classes numbered as in its card.

    Tasks that are preprocessed alike are predicted from one encoding of every window.
    """
    answers = []
    for image in images:
        windows = windows_of(context, image.tasks)
        found = predict_labels(model, image.images_CZYX, image.tasks, image.geometry, windows)
        answers += [(task, found[task.name]) for task in image.tasks]
    return answers


def predict_files(
    model: SegmentationModel, context: JobContext, tasks: Sequence[Task], images: Mapping[str, Paths], output: Path
) -> Iterator[Path]:
    """Write OUTPUT/TASK/NAME for every image and task, and yield each path once its file is there.

    While an image is predicted, the next is read and preprocessed and the one before is written.

    Args:
        model: the network, in evaluation mode.
        context: the job that trained it.
        tasks: tasks to predict on every image.
        images: file name of an image's label maps -> the files of the image.
        output: folder, created if missing.
    """

    def write(image: tuple[str, Paths], found: list[tuple[Task, np.ndarray]]) -> list[Path]:
        name, files = image
        written = [output / task.name / name for task, _ in found]
        for path, (_, labels_XYZ) in zip(written, found, strict=True):
            write_prediction(path, labels_XYZ, like=files[0])
        return written

    for paths in overlapped(
        images.items(),
        read=lambda image: preprocessed_images(context, image[1], tasks),
        work=lambda _, preprocessed: predict_image(model, context, preprocessed),
        finish=write,
    ):
        yield from paths


def _recipe(context: JobContext, task: Task) -> PreprocessingRecipe:
    """Return the recipe of a task with the intensities of the training cases that the network has seen."""
    recipe = preprocessing_recipe(task, context.config.preprocessing_recipes)
    measured = context.preprocessed[task.name].intensities
    return recipe if measured is None else replace(recipe, training=Intensities.from_dict(measured))
