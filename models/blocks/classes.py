"""Which output channel belongs to which class, for networks that answer for the classes of all tasks at once."""

from __future__ import annotations

from segbench.core.task import TaskSet


def class_channels(tasks: TaskSet, *, share_names: bool = False) -> tuple[dict[str, list[int]], int]:
    """Return task name -> channels of its foreground classes in order, and the number of channels.

    Classes of different tasks stay apart, because two data sets may mean different things by one name; with
    `share_names` classes of the same name use one channel.
    """
    known: dict[str, int] = {}
    channels = {
        task.name: [
            known.setdefault(label if share_names else f"{task.name}/{label}", len(known)) for label in task.classes
        ]
        for task in tasks
    }
    return channels, len(known)
