"""A small network size and tasks for the tests of this folder."""

import torch

from models.interface import NetworkSpec
from segbench.core.task import Channel, Structure, Task, TaskSet

SPEC = NetworkSpec(
    patch_size_zyx=(8, 16, 16),
    base_features=4,
    max_features=16,
    pool_kernels_zyx=((1, 2, 2), (2, 2, 2)),
    conv_kernels_zyx=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
)


def make_task(name, classes, *, channels=1, lesions=(), tumours=None):
    """Return a task whose structures are its classes."""
    return Task(
        name=name,
        title=name,
        channels=tuple(Channel(f"channel {number}", "CT") for number in range(channels)),
        classes=tuple(classes),
        structures=tuple(
            Structure(label, (value,), 1.0, lesion=label in lesions) for value, label in enumerate(classes, start=1)
        ),
        tumours=tuple((tumours or {}).items()),
    )


LIVER = make_task("liver", ["liver", "tumour"], lesions=["tumour"], tumours={2: 1})
LUNG = make_task("lung", ["tumour"], lesions=["tumour"], tumours={1: None})
SPLEEN = make_task("spleen", ["spleen"])
TASKS = TaskSet([LIVER, LUNG, SPLEEN])


def images(*, seed=0, batch=1, channels=1, size_zyx=SPEC.patch_size_zyx):
    """Return normal noise, `images_BCZYX`."""
    return torch.randn(batch, channels, *size_zyx, generator=torch.Generator().manual_seed(seed))
