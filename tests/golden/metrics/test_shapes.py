"""Analytic shapes with closed-form answers on anisotropic grids; each derivation stands beside its number."""

import math

import numpy as np
import pytest

from segbench.core.task import Structure
from segbench.metrics import score_pair

SPACING = (1.0, 2.0, 4.0)
VOXEL_MM3 = 8.0


def blank(shape=(20, 12, 10)) -> np.ndarray:
    return np.zeros(shape, dtype=np.uint8)


def box(x, y, z, shape=(20, 12, 10)) -> np.ndarray:
    """A box of half-open ranges."""
    data = blank(shape)
    data[slice(*x), slice(*y), slice(*z)] = 1
    return data


def scores(reference, prediction, spacing=SPACING, tolerance=2.0, lesion=False, **options):
    structure = Structure("shape", (1,), tolerance, lesion)
    return {item.metric: item for item in score_pair(reference, prediction, spacing, [structure], **options)}


def test_equal_boxes_are_perfect():
    found = scores(box((2, 8), (2, 8), (2, 8)), box((2, 8), (2, 8), (2, 8)))
    for name in ("dice", "iou", "nsd", "nsd_voxel"):
        assert found[name].value == 1
    for name in ("hd95", "hd95_max", "hd", "assd", "masd", "volume_error_ml"):
        assert found[name].value == 0


def test_a_shifted_plate_is_its_shift_everywhere():
    """A plate one voxel thick is all surface; shifted by three voxels of 1 mm every voxel distance is 3 mm.

    Its two faces lie at x = 5 and 6, the other's at 8 and 9: from either plate one face is 2 mm and one 3 mm away, so
    half of the area is within 2 mm.
    """
    found = scores(box((5, 6), (0, 12), (0, 10)), box((8, 9), (0, 12), (0, 10)))
    assert found["dice"].value == 0
    for name in ("hd95", "hd95_max", "hd", "assd", "masd"):
        assert found[name].value == pytest.approx(3.0)
    assert found["nsd"].value == pytest.approx(0.5)
    assert found["nsd_voxel"].value == 0


@pytest.mark.parametrize(("axis", "expected"), [(0, 2.0), (1, 4.0), (2, 8.0)])
def test_one_voxel_shifted_along_each_axis_measures_millimetres(axis, expected):
    """Two voxels aside along an axis of 1, 2 or 4 mm: 2, 4 or 8 mm."""
    reference, prediction = blank(), blank()
    place = [5, 5, 5]
    reference[tuple(place)] = 1
    place[axis] += 2
    prediction[tuple(place)] = 1
    found = scores(reference, prediction)
    for name in ("hd", "hd95", "hd95_max", "assd"):
        assert found[name].value == pytest.approx(expected)


def test_dice_iou_and_volume_of_overlapping_boxes():
    """6x6x6 = 216 voxels each, shifted by 2 in x: 4x6x6 = 144 in common; Dice 288/432, IoU 144/288."""
    found = scores(box((2, 8), (2, 8), (2, 8)), box((4, 10), (2, 8), (2, 8)))
    assert found["dice"].value == pytest.approx(2 / 3)
    assert found["iou"].value == pytest.approx(1 / 2)
    assert found["dice"].reference_volume_mm3 == 216 * VOXEL_MM3
    assert found["volume_error_ml"].value == 0


def test_volume_error_in_millilitres():
    """100 voxels more of 8 mm3: 0.8 ml."""
    found = scores(box((0, 10), (0, 10), (0, 1)), box((0, 10), (0, 10), (0, 2)))
    assert found["volume_error_ml"].value == pytest.approx(0.8)


def test_pooled_and_maximum_percentiles_differ_when_one_side_has_an_island():
    """Reference: a plate of 100 voxels. Prediction: the same plate and one voxel 10 mm away.

    Directed distances: 100 zeros from the reference; 100 zeros and one 10 from the prediction. The pooled 95th
    percentile of 201 values is 0, as are both directed ones, while the largest distance is 10 mm and the mean 10/201.
    """
    reference = box((2, 3), (0, 10), (0, 10))
    prediction = reference.copy()
    prediction[12, 5, 5] = 1
    found = scores(reference, prediction)
    assert found["hd95"].value == 0
    assert found["hd95_max"].value == 0
    assert found["hd"].value == pytest.approx(10.0)
    assert found["assd"].value == pytest.approx(10 / 201)


def test_hd95_of_two_points_interpolates():
    """Reference one voxel; prediction it and one 10 mm away: directed {0} and {0, 10}.

    Pooled {0, 0, 10}: 95th percentile at rank 1.9 of 0..2, so 9. Directed: 0 and 9.5; the larger is 9.5.
    """
    reference, prediction = blank(), blank()
    reference[2, 5, 5] = prediction[2, 5, 5] = prediction[12, 5, 5] = 1
    found = scores(reference, prediction)
    assert found["hd95"].value == pytest.approx(9.0)
    assert found["hd95_max"].value == pytest.approx(9.5)


def test_touching_the_border_is_a_surface():
    """A block that fills the volume is wrapped by the border, so its surface is its shell and equals itself."""
    full = np.ones((6, 5, 4), dtype=np.uint8)
    inner = blank((6, 5, 4))
    inner[1:-1, 1:-1, 1:-1] = 1
    found = scores(full, inner, spacing=(1.0, 1.0, 1.0))
    assert found["hd"].value == pytest.approx(math.sqrt(3))
    assert scores(full, full)["hd95"].value == 0


@pytest.mark.parametrize(
    ("reference", "prediction", "status"),
    [
        (blank(), blank(), "both_empty"),
        (blank(), box((2, 4), (2, 4), (2, 4)), "reference_empty"),
        (box((2, 4), (2, 4), (2, 4)), blank(), "prediction_empty"),
    ],
)
def test_empty_masks_have_a_status_and_only_the_values_that_the_definition_gives(reference, prediction, status):
    found = scores(reference, prediction)
    assert found["dice"].status == status
    assert found["dice"].value == (None if status == "both_empty" else 0)
    for name in ("hd95", "hd95_max", "assd"):
        assert found[name].value is None
        assert found[name].status == status


def test_the_published_conventions_are_metrics_of_their_own():
    """UniSeg: unit spacing, 998 when one is empty, 0 and Dice 1 when both are. DoDNet: 373.12866 and Dice 0."""
    one, none = box((2, 4), (2, 4), (2, 4)), blank()
    assert scores(one, none)["uniseg_hd95"].value == 998
    assert scores(none, none)["uniseg_hd95"].value == 0
    assert scores(none, none)["uniseg_dice"].value == 1
    assert scores(one, none)["dodnet_hd95"].value == pytest.approx(373.12866)
    assert scores(none, none)["dodnet_dice"].value == 0
    voxel = blank()
    voxel[3, 3, 3] = 1
    assert scores(voxel, voxel)["dodnet_dice"].value == pytest.approx(2 / 3)
    shifted = np.roll(voxel, 2, axis=2)
    assert scores(voxel, shifted)["uniseg_hd95"].value == pytest.approx(2.0)
    assert scores(voxel, shifted)["hd95"].value == pytest.approx(8.0)


def test_lesions_are_counted_one_by_one():
    """Two lesions, one found, one invented: precision 1/2, recall 1/2, F1 1/2; 8 false voxels of 8 mm3."""
    reference = box((2, 4), (2, 4), (2, 4)) | box((10, 12), (2, 4), (2, 4))
    prediction = box((2, 4), (2, 4), (2, 4)) | box((15, 17), (8, 10), (6, 8))
    found = scores(reference, prediction, lesion=True)
    for name in ("lesion_f1", "lesion_precision", "lesion_recall"):
        assert found[name].value == pytest.approx(0.5)
    assert found["false_positive_volume_ml"].value == pytest.approx(8 * 8 / 1000)


def test_volumes_of_autopet_count_18_connected_components():
    """Two voxels that share only a corner are one component of 26 and two of 18: each has 8 mm3.

    The prediction finds one of them and invents one more voxel that touches the found one by a corner.
    """
    reference, prediction = blank(), blank()
    reference[3, 3, 3] = reference[4, 4, 4] = 1
    prediction[3, 3, 3] = prediction[2, 2, 2] = 1
    found = scores(reference, prediction, lesion=True)
    assert found["false_positive_volume_ml"].value == 0
    assert found["autopet_false_positive_volume_ml"].value == pytest.approx(0.008)
    assert found["autopet_false_negative_volume_ml"].value == pytest.approx(0.008)
    assert scores(blank(), prediction, lesion=True)["autopet_false_negative_volume_ml"].value == 0


def test_a_case_without_lesion_keeps_its_false_positive_volume():
    found = scores(blank(), box((2, 4), (2, 4), (2, 4)), lesion=True)
    assert found["false_positive_volume_ml"].value == pytest.approx(0.064)


def test_nominal_spacing_leaves_overlap_and_refuses_millimetres():
    found = scores(box((2, 8), (2, 8), (2, 8)), box((3, 8), (2, 8), (2, 8)), spacing_is_nominal=True)
    assert found["dice"].status == "ok"
    assert found["hd95"].status == "not_defined"
    assert "nominal" in found["hd95"].reason


def test_a_structure_may_be_a_set_of_labels():
    labels = box((2, 8), (2, 8), (2, 8))
    labels[4:6, 4:6, 4:6] = 2
    organ = Structure("organ", (1, 2), 2.0)
    (value,) = score_pair(labels, (labels > 0).astype(np.uint8), SPACING, [organ], metrics=["dice"])
    assert value.value == 1
