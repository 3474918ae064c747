"""The stream of training batches: which task at which step, and which patches, from named axes.

Step i of a task draws the same patches for every model, whatever else that model trains on, and whatever the number
of worker processes; a resumed run continues at the same place. A self-supervised objective gets patches from anywhere
in the training cases and zeros in the place of labels, which are never read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segbench.core.seeds import seed_for
from segbench.core.task import mirror_axes_of
from segbench.data.sampling import PatchSampler, task_schedule
from segbench.data.store import open_case
from segbench.data.transforms import Augmentation
from segbench.experiment.context import JobContext


class BatchStream(Dataset):
    """Batch number -> (task position, images_BCZYX, labels_BZYX, case ids).

    Args:
        context: the job.
        own: samples of each batch whose patches are given; None for all. Case ids are those of the whole batch.
    """

    def __init__(self, context: JobContext, own: range | None = None):
        self.settings, self.own = context.training, own
        self.job = job = context.job
        self.tasks = context.tasks
        patch_size_zyx = context.network.patch_size_zyx
        self.samplers, sizes = [], []
        for task in self.tasks:
            cases = context.training_cases(task.name)
            sizes.append((task.name, len(cases)))
            axes = mirror_axes_of([task], self.settings.mirror_axes, mirror_sides=self.settings.mirror_sides)
            augmentation = Augmentation(patch_size_zyx, level=self.settings.augmentation, mirror_axes=axes)
            self.samplers.append(
                PatchSampler(
                    [open_case(context.folder(task.name, case)) for case in cases],
                    None if job.self_supervised else task,
                    patch_size_zyx=patch_size_zyx,
                    augmentation=augmentation,
                    foreground_fraction=self.settings.foreground_fraction,
                )
            )
        self._annotated = [{case.case_id: case.annotated for case in sampler.cases} for sampler in self.samplers]
        rng = np.random.default_rng(seed_for("schedule", job.fold, job.seed))
        self.order = task_schedule(sizes, self.settings.iterations_per_task, rule=self.settings.schedule, rng=rng)
        self.visit = _visits(self.order)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, step: int) -> tuple[int, Tensor, Tensor, list[str]]:
        position = self.order[step]
        axes = (self.tasks.names[position], self.job.fold, self.job.seed, self.visit[step])
        rng = np.random.default_rng(seed_for("batch", *axes))
        batch = self.samplers[position].sample(rng, self.settings.batch_size, self.own)
        return position, batch.images, batch.labels, batch.case_ids

    def annotated(self, position: int, case_ids: Sequence[str]) -> list[list[int] | None]:
        """Return per sample of a batch the class values that were looked for in its case, None for all of them."""
        return [self._annotated[position][case_id] for case_id in case_ids]

    def loader(self, start: int, workers: int) -> DataLoader:
        """Return batches from `start` to the end, in order."""
        return DataLoader(
            self,
            batch_size=None,
            sampler=range(start, len(self)),
            num_workers=workers,
            persistent_workers=False,
            prefetch_factor=4 if workers else None,
        )


def _visits(order: Sequence[int]) -> list[int]:
    """Return, for each step, how often its task was drawn before."""
    seen: dict[int, int] = {}
    visits = []
    for position in order:
        visits.append(seen.get(position, 0))
        seen[position] = visits[-1] + 1
    return visits
