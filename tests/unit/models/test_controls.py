"""Controls learn a class from the cases in which somebody looked for it."""

from types import SimpleNamespace

import numpy as np

from models.controls import mean_shape, threshold
from segbench.core.task import IGNORED

TASK = SimpleNamespace(num_classes=3)
BRIGHTNESS = {0: 0.0, 1: 100.0, 2: 200.0}


def case(values, annotated=(1, 2)):
    labels_ZYX = np.zeros((mean_shape.GRID,) * 3, dtype=np.uint8)
    for number, value in enumerate(values):
        labels_ZYX[8 * number : 8 * number + 8] = value
    images_CZYX = np.vectorize(BRIGHTNESS.get)(np.where(labels_ZYX == IGNORED, 0, labels_ZYX))[None].astype(np.float32)
    images_CZYX[:, -8:-4], images_CZYX[:, -4:] = 300, 400  # background that is brighter than all
    return SimpleNamespace(labels=labels_ZYX, images=images_CZYX, is_annotated=lambda value: value in annotated)


def test_mean_shape_counts_a_class_where_it_was_looked_for():
    cases = [case([1, 2]), case([1, 0]), case([1, 0])]
    assert set(np.unique(mean_shape.predict(mean_shape.fit(cases, TASK), cases[0], TASK))) == {0, 1}
    fitted = mean_shape.fit([cases[0], *[case([1, 0], annotated=(1,))] * 2], TASK)
    np.testing.assert_array_equal(mean_shape.predict(fitted, cases[0], TASK), cases[0].labels)


def test_mean_shape_is_background_where_every_case_is_ignored():
    cases = [case([1, IGNORED])]
    assert not mean_shape.predict(mean_shape.fit(cases, TASK), cases[0], TASK)[8:].any()


def test_threshold_finds_the_window_of_a_class_in_the_cases_in_which_it_was_looked_for():
    """In the second case the bright voxels of class 2 are background, because nobody looked for it there."""
    whole, hidden = case([1, 2]), case([1, 2], annotated=(1,))
    hidden.labels[hidden.labels == 2] = 0
    fitted = threshold.fit([whole, hidden, hidden, hidden], TASK)
    np.testing.assert_array_equal(threshold.predict(fitted, whole, TASK), whole.labels)
    assert not (threshold.predict(threshold.fit([hidden], TASK), whole, TASK) == 2).any()
