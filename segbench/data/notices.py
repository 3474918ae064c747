"""What a person should know of a data set that was accepted: nothing here stops a run.

A problem says that a data set cannot be used; a notice says what would mislead: a nominal spacing, too
few patients, patients shared with another data set, values that need clipping.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segbench.core.case import CaseFiles
from segbench.core.errors import some
from segbench.data.presence import expected_count
from segbench.data.volumes import SUFFIXES

LARGEST_CT = 4095  # of 12-bit scanners, offset of 1024 included
SCALE_SPREAD = 100
FEW_PATIENTS = 10


@dataclass(frozen=True)
class Seen:
    """What the check saw of one readable case.

    ranges: lowest and highest value of each channel; labels: the stored label values; checksum: of the voxels of all
    channels; oddities: sentences on headers that programs read differently; ignored: values that occur and mark voxels
    which count nowhere; is_sound: the case has no problem, so that ranges and labels can be taken at their word.
    quartiles: (channel, label value) -> lower and upper quartile of its voxels in a CT channel.
    """

    case: CaseFiles
    ranges: tuple[tuple[float, float], ...]
    labels: frozenset[int]
    checksum: int
    oddities: tuple[str, ...] = ()
    ignored: frozenset[int] = frozenset()
    is_sound: bool = True
    quartiles: Mapping[tuple[int, int], tuple[float, float]] = field(default_factory=dict)


def notices_of(
    seen: Sequence[Seen], values: set[int], modalities: Sequence[str], *, cases: Sequence[CaseFiles]
) -> list[str]:
    """Return the notices that follow from the cases alone: from sound ones only, as far as voxels are concerned.

    values: the declared label values. cases: all cases of the data set.
    """
    sound = [item for item in seen if item.is_sound]
    labels = _labels(sound, values, complete=len(sound) == len(cases))
    return [*_size(cases), *labels, *_ignored(sound), *_ranges(sound, modalities), *_oddities(seen)]


def card_notices(name: str, cards: Mapping[str, dict], cases: int) -> list[str]:
    """Return the notices that the card of a data set brings. cases: the number of labelled cases found."""
    card = cards[name]
    shared = [
        other
        for other, item in cards.items()
        if item["patient_namespace"] == card["patient_namespace"] and item["folder"] != card["folder"]
    ]
    found = []
    if cases < expected_count(card) and not card["synthetic"]:
        found.append(f"{cases} of the {expected_count(card)} labelled cases that the card {name} expects")
    if card.get("sides"):
        pairs = ", ".join(" and ".join(pair) for pair in card["sides"])
        found.append(
            f"classes that differ by side (card {name}: {pairs}): the left-right axis is not mirrored, unless "
            "`training.mirror_sides` restores what was published"
        )
    if card["spacing_is_nominal"]:
        found.append(f"the spacing in the headers is nominal (card {name}): no distance in mm is reported")
    if shared and not card["synthetic"]:
        found.append(f"its patients are also those of {', '.join(shared)}: split them alike, as seeded and kfold do")
    if not card["permits"]["commercial"]:
        found.append(f"not for commercial use ({card['licence']})")
    return found


def label_quartiles(
    channels: Sequence[np.ndarray], labels_XYZ: np.ndarray, modalities: Sequence[str]
) -> dict[tuple[int, int], tuple[float, float]]:
    """Return (channel, label value) -> lower and upper quartile of its voxels, for CT channels."""
    found = {}
    numbers = [number for number, modality in enumerate(modalities) if modality == "CT" and number < len(channels)]
    for value in np.unique(labels_XYZ[labels_XYZ > 0]) if numbers else ():
        inside = labels_XYZ == value
        for number in numbers:
            low, high = np.percentile(channels[number][inside], (25, 75))
            found[number, int(value)] = (float(low), float(high))
    return found


def window_notices(seen: Sequence[Seen], card: Mapping[str, Any], window_hu: tuple[float, float] | None) -> list[str]:
    """Return a notice of each class of which the window of CT cuts away more than a quarter, in half of the cases.

    window_hu: the recipe's `clip_hu`; None where it follows the training foreground, which cuts nothing like that.
    """
    if window_hu is None:
        return []
    low, high = window_hu
    cut: dict[str, list[bool]] = defaultdict(list)
    for item in seen:
        for (_, value), (lower, upper) in item.quartiles.items():
            name = card["classes"].get(str(card["merge"].get(value, value)))
            if name is not None:
                cut[name].append(lower < low or upper > high)
    return [
        f"the window {low:g} to {high:g} of CT saturates more than a quarter of the voxels of {name} in {sum(cases)} "
        f"of {len(cases)} cases: name another `clip_hu`, or null for the percentiles of the training foreground"
        for name, cases in cut.items()
        if 2 * sum(cases) >= len(cases)
    ]


def annotation_notices(cases: Sequence[CaseFiles], classes: Mapping[str, str]) -> list[str]:
    """Return for each class (value -> name) in how many cases somebody looked for it, where that is not in all."""
    stated = [set(case.annotated) for case in cases if case.annotated is not None]
    absent = {name: sum(int(value) not in known for known in stated) for value, name in classes.items()}
    return [
        f"{name} is annotated in {len(cases) - count} of {len(cases)} cases: in the others it counts neither in the "
        "loss nor in a score"
        for name, count in absent.items()
        if count
    ]


def unlisted(folder: Path, cases: Sequence[CaseFiles]) -> list[str]:
    """Return a notice of label files in labelsTr that the data set's list does not name."""
    listed = {case.label_path.name for case in cases if case.label_path}
    left = sorted(path.name for path in (folder / "labelsTr").glob("[!.]*") if path.name not in listed)
    return [f"{len(left)} files in labelsTr that dataset.json does not list: {some(left)}"] if left else []


def unlabelled(folder: Path, cases: Sequence[CaseFiles]) -> list[str]:
    """Return a notice of images in imagesTr that belong to no labelled case; none for a folder without imagesTr."""
    used = {path.name for case in cases for path in case.image_paths}
    left = sorted(path.name for path in (folder / "imagesTr").glob("[!.]*") if path.name not in used)
    left = [name for name in left if name.lower().endswith(SUFFIXES)]
    return [f"{len(left)} image(s) in imagesTr without a label, which nothing uses: {some(left)}"] if left else []


def _size(cases: Sequence[CaseFiles]) -> Iterator[str]:
    patients = len({case.patient_id for case in cases})
    if patients == 1:
        yield "one patient: it cannot be split into training and test"
    elif patients < FEW_PATIENTS:
        yield f"{patients} patients: enough to try the format, too few to compare models"


def _labels(seen: Sequence[Seen], values: set[int], *, complete: bool) -> Iterator[str]:
    empty = [item.case.case_id for item in seen if not item.labels - {0}]
    if empty:
        yield f"{len(empty)} of {len(seen)} label maps are empty: {some(empty)}"
    absent = values - {0} - set().union(*(item.labels for item in seen))
    if absent and complete and len(empty) < len(seen):
        yield f"label values in no case: {some(sorted(absent))}"
    labelled = [item.labels for item in seen if item.labels - {0}]
    partly = {value: sum(value not in labels for labels in labelled) for value in sorted(values - {0} - absent)}
    partly = {value: count for value, count in partly.items() if count}
    if partly and len(values) > 2:
        listed = some([f"{value} from {count}" for value, count in partly.items()])
        yield f"label values absent from some of {len(labelled)} labelled cases: {listed}"


def _ignored(seen: Sequence[Seen]) -> Iterator[str]:
    cases = [item.case.case_id for item in seen if item.ignored]
    if cases:
        values = sorted(set().union(*(item.ignored for item in seen)))
        yield (
            f"ignored voxels (label {some(values)}) in {len(cases)} of {len(seen)} cases, which count nowhere: "
            f"{some(cases)}"
        )


def _ranges(seen: Sequence[Seen], modalities: Sequence[str]) -> Iterator[str]:
    for channel, modality in enumerate(modalities):
        highest = {item.case.case_id: item.ranges[channel][1] for item in seen}
        bright = [case for case, value in highest.items() if value > LARGEST_CT]
        if modality == "CT" and bright:
            yield (
                f"channel {channel} (CT) has values up to {max(highest.values()):g}, above {LARGEST_CT}, in "
                f"{len(bright)} case(s), such as of metal: {some(bright)}; recipes clip them (`clip_hu`)"
            )
        positive = [value for value in highest.values() if value > 0]
        if modality != "CT" and positive and max(positive) > SCALE_SPREAD * min(positive):
            yield (
                f"channel {channel} ({modality}) has largest values from {min(positive):g} to {max(positive):g}: only "
                "normalisation per case makes them comparable, as recipes do"
            )


def _oddities(seen: Sequence[Seen]) -> Iterator[str]:
    cases = defaultdict(list)
    for item in seen:
        for oddity in item.oddities:
            cases[oddity].append(item.case.case_id)
    for oddity, names in cases.items():
        yield f"{oddity} in {len(names)} of {len(seen)} cases: {some(names)}"
