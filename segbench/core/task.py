"""Task, channels, structures and the ordered set of tasks; built from cards, never typed a second time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from segbench.core.errors import input_error, suggestion

MODALITIES = ("CT", "MR", "PET")
IGNORED = 255
"""Value of a voxel that nobody annotated, in label maps that were read or preprocessed: it counts nowhere."""
LEFT_RIGHT = 2
"""Axis of a preprocessed volume (z, y, x in RAS+ order) along which left and right lie."""


@dataclass(frozen=True)
class Channel:
    """One input channel; `modality` is CT, MR or PET."""

    name: str
    modality: str


@dataclass(frozen=True)
class Structure:
    """What is scored: a named *set* of class values, with the tolerance of its surface Dice in mm.

    `lesion` asks for lesion-wise detection metrics as well.
    """

    name: str
    labels: tuple[int, ...]
    tolerance_mm: float
    lesion: bool = False


@dataclass(frozen=True)
class Task:
    """One segmentation task, which is one data set.

    classes: names of the exclusive foreground classes; class value k + 1 in a preprocessed or predicted
    label map is `classes[k]`, 0 is background. structures: what is scored.
    tumours: (class value, class value of the organ that counts it as its own, or None) of each class that is a tumour
    or lesion; networks that train organ and tumour as overlapping channels ask for it, scores never do.
    sides: pairs of class values that differ by their side of the body alone, such as left and right kidney.
    spacing_is_nominal: the header's spacing is not the true one, so distances in mm are not defined.
    """

    name: str
    title: str
    channels: tuple[Channel, ...]
    classes: tuple[str, ...]
    structures: tuple[Structure, ...]
    preprocessing: str = "default"
    spacing_is_nominal: bool = False
    synthetic: bool = False
    tumours: tuple[tuple[int, int | None], ...] = ()
    sides: tuple[tuple[int, int], ...] = ()

    @property
    def num_channels(self) -> int:
        """Number of input channels."""
        return len(self.channels)

    @property
    def num_classes(self) -> int:
        """Number of output classes, background included."""
        return len(self.classes) + 1

    @property
    def modality(self) -> str:
        """Modalities in channel order without repetition, for example 'CT', 'MR' or 'CT+PET'."""
        return "+".join(dict.fromkeys(channel.modality for channel in self.channels))


def mirror_axes_of(tasks: Iterable[Task], asked: Iterable[int], *, mirror_sides: bool) -> tuple[int, ...]:
    """Return the axes (z, y, x) that may be mirrored for all of these tasks, in training and at test time.

    Args:
        tasks: tasks of one network pass.
        asked: axes that the config names.
        mirror_sides: whether the left-right axis stays among them for tasks whose classes differ by side, as published
            recipes have it.
    """
    keeps = mirror_sides or not any(task.sides for task in tasks)
    return tuple(axis for axis in asked if keeps or axis != LEFT_RIGHT)


class TaskSet:
    """Ordered, immutable set of tasks; the order gives each task its index in prompts and codes."""

    def __init__(self, tasks: Iterable[Task]):
        self._tasks = tuple(tasks)
        self._index = {task.name: i for i, task in enumerate(self._tasks)}
        assert len(self._index) == len(self._tasks), "task names must be unique"

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, name: str) -> Task:
        return self._tasks[self.index(name)]

    def index(self, task: Task | str) -> int:
        """Return the position of a task; an unknown one raises `InputError` with a suggestion."""
        name = task if isinstance(task, str) else task.name
        if name not in self._index:
            raise input_error(
                "task", found=repr(name), expected="a task of this model", fix=suggestion(name, self._index)
            )
        return self._index[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Task names in order."""
        return tuple(self._index)

    @property
    def channel_counts(self) -> tuple[int, ...]:
        """Distinct channel counts, ascending: one input stem for each."""
        return tuple(sorted({task.num_channels for task in self._tasks}))

    @property
    def max_classes(self) -> int:
        """Largest class count of any task, background included."""
        return max(task.num_classes for task in self._tasks)
