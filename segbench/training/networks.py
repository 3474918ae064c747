"""Whether the networks of a config can be built and answer their tasks, found before a run, on shapes alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from models.interface import SegmentationModel
from segbench.core.cards import code_of
from segbench.core.errors import InputError, Problem, is_machine_failure, short
from segbench.experiment.config import Config
from segbench.experiment.context import JobContext
from segbench.experiment.jobs import training_jobs


def network_problems(config: Config) -> Iterator[Problem]:
    """Yield why a network or objective cannot be trained; of a per-task one the first task stands for all.

    A network that looks at values, which shapes alone do not have, is only built.
    """
    first = {(job.experiment, job.model): job for job in reversed(training_jobs(config)) if not job.external}
    for job in reversed(first.values()):
        context = JobContext(config, job)
        try:
            _answer(context)
        except InputError as error:
            yield from error.problems
        except (Exception, SystemExit) as error:  # of a file that anybody may have written
            if is_machine_failure(error):
                raise
            name = config.model_entry(job.model).name
            yield Problem(
                code_of(name, objective=job.self_supervised),
                f"{type(error).__name__}: {short(error, most=200)}",
                f"a network that is built and answers {', '.join(context.tasks.names)}",
                f"python -m pytest tests/contract -k {name}",
            )


def _answer(context: JobContext) -> None:
    """Build the job's network and let it answer a batch of each task without values, in training and evaluation."""
    from segbench.training.loop import new_model

    model = new_model(context, scaled=False)
    if not isinstance(model, SegmentationModel):
        return
    model.to("meta")
    size_zyx, batch = context.network.patch_size_zyx, context.training.batch_size
    for task in model.tasks:
        images_BCZYX = torch.empty(batch, task.num_channels, *size_zyx, device="meta")
        for training in (True, False):
            try:
                with torch.no_grad():
                    model.train(training)(images_BCZYX, task)
            except (NotImplementedError, RuntimeError) as error:
                if "meta tensor" not in str(error).lower():
                    raise
