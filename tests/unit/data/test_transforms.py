"""The matrix of a rotation and scaling is that of batchgeneratorsv2, whose module is slow to import."""

import numpy as np
import pytest
from batchgeneratorsv2.transforms.spatial.spatial import create_affine_matrix_3d

from segbench.data.transforms import affine_matrix


def test_a_quarter_turn_about_the_first_axis_after_scaling():
    found = affine_matrix((np.pi / 2, 0.0, 0.0), (2.0, 3.0, 5.0))
    assert found == pytest.approx(np.array([[2, 0, 0], [0, 0, -5], [0, 3, 0]]))


@pytest.mark.parametrize("seed", range(5))
def test_it_is_that_of_batchgeneratorsv2_bit_by_bit(seed):
    rng = np.random.default_rng(seed)
    angles, scales = tuple(rng.uniform(-np.pi, np.pi, 3)), tuple(rng.uniform(0.7, 1.4, 3))
    assert np.array_equal(affine_matrix(angles, scales), create_affine_matrix_3d(angles, scales))
