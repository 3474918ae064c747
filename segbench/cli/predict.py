"""Predict images of your own with a trained job of a run; several tasks on one image share its encoding."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from segbench.cli._job import check_machine, computing_device

EXAMPLE = (
    "python -m segbench predict --config results/demo/config.json --job upstream.uniseg.random.joint.f0.s0 "
    "--images ct.nii.gz --tasks phantom_liver phantom_spleen --output predicted"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--config", type=Path, required=True, help="resolved config of the run")
    parser.add_argument("--job", required=True, help="id of a training job, a folder of results/RUN/train")
    parser.add_argument(
        "--images",
        nargs="+",
        required=True,
        metavar="IMAGE",
        help="one image each: a 3D or 4D file, or one file per channel with commas between, in the order of the card",
    )
    parser.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="tasks of the job (default: all)")
    parser.add_argument("--output", type=Path, required=True, help="folder for TASK/IMAGE.nii.gz, created if missing")
    parser.add_argument("--threads", type=int, default=1, help="threads of the numerical libraries")


def run(args: argparse.Namespace) -> int:
    """Write one label map per image and task on the image's grid and print its path; problems exit with status 2."""
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    check_machine(threads=(args.threads, 1))
    from segbench.core.memory import keep_freed_memory

    keep_freed_memory()  # before PyTorch allocates
    from segbench.evaluation import predict
    from segbench.evaluation.predictors.network import trained_network
    from segbench.experiment.config import load_config

    config = load_config(args.config)
    context = predict.trained_job(config, args.job)
    tasks = predict.asked_tasks(context, args.tasks)
    images = {name: _files(name) for name in args.images}
    targets = _targets(images, args.output, [task.name for task in tasks])
    for notice in predict.checked_images(list(images.values()), tasks):
        print(f"notice: {notice}", file=sys.stderr)
    model = trained_network(context, device=computing_device(args.threads))
    named = {targets[name]: paths for name, paths in images.items()}
    for path in predict.predict_files(model, context, tasks, named, args.output):
        print(path, flush=True)
    return 0


def _files(name: str) -> list[Path]:
    """Return the files of one image; a comma separates channels unless it belongs to the name of a file."""
    if os.path.exists(name):
        return [Path(name)]
    files, left = [], ""
    for part in name.split(","):
        left = f"{left},{part}" if left else part
        text = left if os.path.exists(left) else left.strip()
        if os.path.exists(text):
            files.append(Path(text))
            left = ""
    return files if files and not left else [Path(part.strip()) for part in name.split(",")]


def _targets(images: dict[str, list[Path]], output: Path, tasks: Sequence[str]) -> dict[str, str]:
    """Return the file name of each image's predictions.

    Two images of one name, and predictions that cannot be written or would replace an image, raise `InputError`.
    """
    from segbench.core.errors import Problem, raise_problems
    from segbench.evaluation.label_maps import case_name

    targets: dict[str, str] = {}
    problems: list[Problem] = []
    for name, paths in images.items():
        target = f"{case_name(paths[0].name) or paths[0].name}.nii.gz"
        if target in targets.values():
            problems.append(Problem(name, f"the name {target} again", "one name per image", "use two folders"))
        targets[name] = target
    read = {os.path.realpath(path) for paths in images.values() for path in paths}
    for folder in (output, *(output / task for task in tasks)):
        if folder.exists() and not folder.is_dir():
            problems.append(Problem(str(folder), "a file", "a folder", "name another folder"))
    for path in (output / task / target for task in tasks for target in targets.values()):
        if os.path.realpath(path) in read:
            problems.append(Problem(str(path), "an image", "a path for its label map", "name another --output"))
        elif path.is_dir():
            problems.append(Problem(str(path), "a folder", "a file", "name another --output"))
    raise_problems(problems)
    return targets
