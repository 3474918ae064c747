"""`score_pair`: inputs of any layout, many structures, statuses, and problems in words."""

import math
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from segbench.core.errors import InputError
from segbench.core.task import Structure
from segbench.core.vocabulary import STATUSES
from segbench.metrics import METRICS, score_pair

SPACING = (0.7, 1.0, 2.5)


def label_map(seed: int) -> np.ndarray:
    """Three structures in blocks with noise at the rim, and a fourth label that nobody asks for."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((16, 14, 12), dtype=np.uint8)
    for value, corner in enumerate([(1, 1, 1), (9, 2, 2), (3, 8, 5), (11, 9, 8)], start=1):
        block = tuple(slice(start, start + 4) for start in corner)
        labels[block] = np.where(rng.random((4, 4, 4)) < 0.8, value, 0)
    return labels


STRUCTURES = [
    Structure("one", (1,), 1.0),
    Structure("both", (2, 3), 1.4, lesion=True),
    Structure("absent", (300,), 1.0),
]


def test_every_structure_and_metric_once_in_order():
    found = score_pair(label_map(0), label_map(1), SPACING, STRUCTURES)
    assert [(item.structure, item.metric) for item in found] == [(s.name, m) for s in STRUCTURES for m in METRICS]
    assert {item.status for item in found} <= set(STATUSES)
    assert {item.status for item in found if item.structure == "absent"} == {"both_empty", "not_defined"}


def test_memory_layout_and_integer_type_do_not_matter():
    plain = score_pair(label_map(0), label_map(1), SPACING, STRUCTURES)
    other = score_pair(
        np.asfortranarray(label_map(0).astype(np.int64)), label_map(1).astype(np.int16), SPACING, STRUCTURES, threads=2
    )
    assert plain == other


def test_a_structure_scores_alone_as_among_others_and_in_a_wider_volume():
    alone = score_pair(label_map(0), label_map(1), SPACING, STRUCTURES[:1])
    wide = score_pair(np.pad(label_map(0), 5), np.pad(label_map(1), 5), SPACING, STRUCTURES)
    assert alone == [replace(item, diagonal_mm=alone[0].diagonal_mm) for item in wide[: len(METRICS)]]
    shape_xyz = np.add(label_map(0).shape, 10)
    assert wide[0].diagonal_mm == pytest.approx(math.hypot(*np.multiply(shape_xyz, SPACING)))


def test_lesion_metrics_and_tolerance_are_refused_with_a_reason():
    found = score_pair(label_map(0), label_map(1), SPACING, [Structure("organ", (1,), float("nan"))])
    reasons = {item.metric: item.reason for item in found if item.status == "not_defined"}
    assert set(reasons) == {
        "nsd",
        "nsd_voxel",
        "lesion_f1",
        "lesion_precision",
        "lesion_recall",
        "false_positive_volume_ml",
        "autopet_false_positive_volume_ml",
        "autopet_false_negative_volume_ml",
    }
    assert "tolerance" in reasons["nsd"]
    assert "lesion" in reasons["lesion_f1"]


def test_only_what_is_asked_is_computed(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("distances were computed for Dice")

    monkeypatch.setattr("segbench.metrics.pair.distances", refuse)
    score_pair(label_map(0), label_map(1), SPACING, STRUCTURES, metrics=["dice", "volume_error_ml", "lesion_f1"])


def test_memory_stays_under_three_times_the_crop():
    """Both masks of the crop, 8 bits a voxel, are the measure; search trees in C++ come on top (docs/metrics.md)."""
    axes = np.ogrid[-40:40, -80:80, -80:80]
    ball = sum((axis / radius) ** 2 for axis, radius in zip(axes, (38, 76, 76), strict=True)) < 1
    prediction = np.roll(ball, (1, 2), axis=(0, 1)).view(np.uint8)
    structure, crop = Structure("organ", (1,), 2.0), 2 * 76 * 153 * 151
    score_pair(ball[:8], prediction[:8], SPACING, [structure])
    tracemalloc.start()
    score_pair(ball.view(np.uint8), prediction, SPACING, [structure])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * crop


def test_bool_masks_are_label_maps_of_one_label():
    reference, prediction = label_map(0) == 1, label_map(1) == 1
    masks = score_pair(reference, prediction, SPACING, STRUCTURES[:1])
    assert masks == score_pair(label_map(0), label_map(1), SPACING, STRUCTURES[:1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prediction_XYZ": np.zeros((2, 2, 2), np.uint8)}, "resample"),
        ({"prediction_XYZ": np.zeros((16, 14, 12))}, "float64"),
        ({"spacing_mm_xyz": (1.0, 0.0, 1.0)}, "three positive numbers"),
        ({"metrics": ["hd59"]}, "did you mean 'hd95'?"),
    ],
)
def test_problems_are_named(change, words):
    given = {"reference_XYZ": label_map(0), "prediction_XYZ": label_map(1), "spacing_mm_xyz": SPACING} | change
    with pytest.raises(InputError) as error:
        score_pair(**given, structures=STRUCTURES)
    assert words in str(error.value)


def test_the_facts_are_light():
    code = "import sys, segbench.core.metric_facts; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
