"""Surfaces and distances: both ways of finding the nearest point agree, also where a tolerance is met exactly."""

import numpy as np
import pytest
import surface_distance.lookup_tables as tables
from scipy import ndimage

from segbench.metrics import surface
from segbench.metrics.crop import PLANES_AT_ONCE
from segbench.metrics.surface import corner_surface, distances, voxel_surface
from segbench.metrics.surfels import surfel_areas


def noise(seed: int, fraction: float) -> np.ndarray:
    return np.random.default_rng(seed).random((14, 12, 10)) < fraction


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.3, 5.0)])
def test_areas_are_those_of_the_defining_library(spacing):
    np.testing.assert_allclose(
        surfel_areas(spacing), tables.create_table_neighbour_code_to_surface_area(spacing), rtol=1e-12
    )


def test_a_voxel_has_eight_corners_of_equal_area():
    """The surface cuts a small triangle off each of the eight cells around one voxel: normal (1, 1, 1) / 8."""
    mask = np.ones((1, 1, 1), dtype=bool)
    found = corner_surface(mask)
    assert len(found.flat) == 8
    assert found.area_mm2((1.0, 1.0, 1.0)) == pytest.approx(8 * np.sqrt(3) / 8)


def test_the_area_does_not_depend_on_how_a_long_crop_is_cut_into_planes():
    """Planes are taken a few at a time along the first axis; turning the mask cuts it elsewhere."""
    mask = np.pad(np.random.default_rng(1).random((3 * PLANES_AT_ONCE + 5, 7, 9)) < 0.4, 1)
    straight, turned = corner_surface(mask), corner_surface(np.ascontiguousarray(mask.transpose(2, 1, 0)))
    assert np.array_equal(np.sort(straight.flat), straight.flat)
    assert straight.area_mm2((3.0, 2.0, 1.0)) == pytest.approx(turned.area_mm2((1.0, 2.0, 3.0)), rel=1e-12)
    corners = np.zeros(straight.shape, dtype=bool)
    corners.ravel()[straight.flat] = True
    assert np.array_equal(np.flatnonzero(corners.transpose(2, 1, 0)), turned.flat)


def test_surface_of_a_block_is_its_shell():
    """5 x 4 x 3 voxels hold 3 x 2 x 1 without a face outside; 60 - 6 remain."""
    assert len(voxel_surface(np.ones((5, 4, 3), dtype=bool)).flat) == 54


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.8, 3.0)])
@pytest.mark.parametrize("by_transform", [False, True])
def test_distances_are_those_of_an_exact_transform(spacing, by_transform, monkeypatch):
    if by_transform:
        monkeypatch.setattr(surface, "FEW_QUERIES", -1)
        monkeypatch.setattr(surface, "VOXELS_PER_QUERY", 10**9)
    query, target = voxel_surface(noise(0, 0.3)), voxel_surface(noise(1, 0.02))
    expected = ndimage.distance_transform_edt(~target.mask(), sampling=spacing)[query.mask()]
    found = distances(query, target, spacing_mm_xyz=spacing)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_transform_decides_ties_with_the_tolerance_like_the_tree(monkeypatch):
    """Points exactly 3 x 0.7 mm away: single precision alone would put them on either side of 3 * 0.7."""
    tolerance = 3 * 0.7
    query, target = voxel_surface(noise(2, 0.2)), voxel_surface(noise(3, 0.01))
    options = {"spacing_mm_xyz": (0.7, 0.7, 0.7), "tolerance_mm": tolerance}
    tree = distances(query, target, **options)
    monkeypatch.setattr(surface, "FEW_QUERIES", -1)
    monkeypatch.setattr(surface, "VOXELS_PER_QUERY", 10**9)
    transform = distances(query, target, **options)
    assert (tree == tolerance).any()
    np.testing.assert_array_equal(tree <= tolerance, transform <= tolerance)


def test_beyond_the_limit_is_infinite_and_within_it_exact():
    query, target = voxel_surface(noise(4, 0.2)), voxel_surface(noise(5, 0.01))
    whole = distances(query, target, spacing_mm_xyz=(1.0, 2.0, 3.0))
    limited = distances(query, target, spacing_mm_xyz=(1.0, 2.0, 3.0), limit_mm=3.0)
    np.testing.assert_array_equal(limited, np.where(whole <= 3.0, whole, np.inf))
