"""Read a DICOM series and its RTSTRUCT contours as a volume, an affine and a mask.

Axes are x (along a row of pixels), y (down the rows) and z (across slices); affines are NIfTI's: millimetres, first
axis to the right, second to the front, third up (RAS+), whereas DICOM's patient axes are LPS+. Sources: DICOM PS3.3,
C.7.6.2 (image plane: position, orientation, pixel spacing) and C.8.8.6 (contours).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from matplotlib.path import Path as Polygon
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_rescale

from segbench.core.errors import input_error, short
from segbench.core.folders import files_below

log = logging.getLogger(__name__)

UNREADABLE = (
    AttributeError,
    KeyError,
    ValueError,
    IndexError,
    TypeError,
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)  # what pydicom raises for missing tags, truncated pixels and unknown encodings
CLOSED = ("CLOSED", "INTERPOLATED")
"""How the types of closed contours begin: CLOSED_PLANAR, CLOSEDPLANAR_XOR, and INTERPOLATED_PLANAR of programs."""
EXCLUSIVE = "XOR"
"""How the type ends whose areas on a slice are combined by exclusive or (PS3.3, C.8.8.6.3)."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
ORIENTATION_TOLERANCE = 1e-4
GAP_TOLERANCE = 0.02  # of the distance between slices
OFF_SLICE_TOLERANCE = 0.25  # of the distance between slices; nearer contours belong to that slice


class Contour(NamedTuple):
    """A closed contour: points_mm, N x 3 in LPS; is_exclusive: its slice holds the exclusive or of such contours."""

    points_mm: np.ndarray
    is_exclusive: bool = False


def in_words(error: Exception) -> str:
    """Return what is wrong with a DICOM file for an error that reading it raised, without words of Python."""
    if isinstance(error, AttributeError) and error.name:
        element = "PixelData" if error.name == "pixel_array" else error.name
        return f"a header without the element {element} ({getattr(error.obj, 'filename', 'unknown file')})"
    if isinstance(error, TypeError):
        return "a header with an empty element"
    if isinstance(error, (KeyError, IndexError)):
        return "a header that lacks an element, or an entry of one"
    return f"a file that cannot be read ({short(error)})"


def headers_by_series(folder: Path) -> dict[str, list[pydicom.Dataset]]:
    """Return series UID -> headers (no pixels) of every DICOM file below a folder; other files are passed over.

    Links to folders are followed.
    """
    series: dict[str, list[pydicom.Dataset]] = defaultdict(list)
    for path in sorted(path for path in files_below(folder) if path.is_file()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except InvalidDicomError:
            continue
        series[str(header.get("SeriesInstanceUID", ""))].append(header)
    return dict(series)


def read_series(headers: Sequence[pydicom.Dataset]) -> tuple[np.ndarray, np.ndarray]:
    """Return images_XYZ (the stored type, float32 where the files rescale) and the 4x4 affine of one series.

    Slices are ordered by position along the normal, never by file name or instance number. Raises InputError for a
    missing or double slice, for slices that differ in orientation, spacing or shape or do not lie on one line, and for
    a file with colours or several frames. SimpleITK's reader, which agrees on whole series, fills a gap silently.
    """
    headers, affine = order_slices(headers)
    slices = []
    for header in headers:
        dataset = pydicom.dcmread(header.filename)
        pixels = dataset.pixel_array
        if pixels.ndim != 2:
            found = f"pixels of shape {pixels.shape}"
            raise input_error(header.filename, found=found, expected="one grey slice", fix="get the series again")
        slices.append(apply_rescale(pixels, dataset).T)
    volume = np.stack(slices, axis=2)
    return volume.astype(np.float32) if volume.dtype.kind == "f" else volume, affine


def order_slices(headers: Sequence[pydicom.Dataset]) -> tuple[list[pydicom.Dataset], np.ndarray]:
    """Return the headers of a series in order of position, and the affine of the volume that they make."""
    where = Path(headers[0].filename).parent
    grids = np.array(
        [
            [*map(float, (*item.ImageOrientationPatient, *item.PixelSpacing)), item.Rows, item.Columns]
            for item in headers
        ]
    )
    if np.ptp(grids, axis=0).max() > ORIENTATION_TOLERANCE:
        raise input_error(
            where,
            found="slices of unlike orientation, spacing or shape",
            expected="one grid",
            fix="separate the series",
        )
    if not (grids[0, 6:8] > 0).all():
        found = f"PixelSpacing {grids[0, 6:8].tolist()}"
        raise input_error(where, found=found, expected="positive millimetres", fix="get the series again")
    right, down = grids[0, :3], grids[0, 3:6]
    positions = np.array([list(map(float, item.ImagePositionPatient)) for item in headers])
    heights = positions @ np.cross(right, down)
    order = np.argsort(heights, kind="stable")
    gaps = np.diff(heights[order])
    if not len(gaps):
        raise input_error(where, found="one slice", expected="a volume", fix="get the series again")
    typical = float(np.median(gaps))
    uneven = np.abs(gaps - typical) > GAP_TOLERANCE * typical
    if typical <= 0 or uneven.any():
        worst = gaps[np.argmax(np.abs(gaps - typical))]
        raise input_error(
            where,
            found=f"{len(headers)} slices with gaps of {typical:g} and {worst:g} mm",
            expected="one slice at every step",
            fix="get the series again",
        )
    first, last = positions[order[0]], positions[order[-1]]
    line = np.linspace(first, last, len(positions))
    off_mm = np.linalg.norm(positions[order] - line, axis=1).max()
    if off_mm > GAP_TOLERANCE * typical:
        found = f"slices up to {off_mm:.3g} mm off the line from the first to the last"
        raise input_error(where, found=found, expected="slices on one line", fix="get the series again")
    affine = np.eye(4)
    affine[:3, 0] = right * grids[0, 7]
    affine[:3, 1] = down * grids[0, 6]
    affine[:3, 2] = (last - first) / len(gaps)
    affine[:3, 3] = first
    return [headers[index] for index in order], LPS_TO_RAS @ affine


def referenced_series(structures: pydicom.Dataset) -> set[str]:
    """Return the UIDs of the image series that an RTSTRUCT was drawn on."""
    return {
        str(series.SeriesInstanceUID)
        for frame in structures.get("ReferencedFrameOfReferenceSequence", ())
        for study in frame.get("RTReferencedStudySequence", ())
        for series in study.get("RTReferencedSeriesSequence", ())
    }


def structure_names(structures: pydicom.Dataset) -> list[str]:
    """Return the names of the structures that have contours, each once, in the order of the set."""
    return list(dict.fromkeys(name for name, contours in _drawn(structures) if contours))


def contours_of(structures: pydicom.Dataset, name: str) -> list[Contour]:
    """Return the contours of a structure; none for a structure without any.

    Raises:
        InputError: for a second structure of that name, in any letter case, with contours, for two structures with one
            number, and for an item that encloses no area (points, open contours) or lacks its points, because a mask
            without it would not be the structure as drawn.
    """
    where = f"{structures.filename}, structure {name}"
    same = [item for item in _drawn(structures) if item[0].strip().casefold() == name.strip().casefold() and item[1]]
    if len(same) > 1:
        found = f"{len(same)} of them ({', '.join(other for other, _ in same)})"
        expected, fix = "one structure of that name in any letter case", "rename or delete one in the planning program"
        raise input_error(where, found=found, expected=expected, fix=fix)
    return [_contour(item, where) for _, items in same for item in items]


def _contour(item: pydicom.Dataset, where: str) -> Contour:
    """Return a closed contour of a structure set; anything else raises InputError."""
    kind = str(item.get("ContourGeometricType", "")) or "(none)"
    stored = item.get("ContourData")
    numbers = np.atleast_1d(np.asarray([] if stored is None else stored, dtype=float))
    if len(numbers) == 0 or len(numbers) % 3:
        found = f"a contour with {len(numbers)} numbers" if len(numbers) else "a contour without points (ContourData)"
        raise input_error(where, found=found, expected="x, y and z of every point", fix="get the structure set again")
    if not kind.startswith(CLOSED) or len(numbers) < 9:
        raise input_error(
            where,
            found=f"an item of type {kind} with {len(numbers) // 3} point(s)",
            expected="closed contours",
            fix="delete the item in the planning program, or choose another structure",
        )
    return Contour(numbers.reshape(-1, 3), kind.endswith(EXCLUSIVE))


def _drawn(structures: pydicom.Dataset) -> list[tuple[str, list[pydicom.Dataset]]]:
    """Return (name, items) of every structure; items of several sequences for one structure are all kept.

    Two structures with one number raise InputError: their items cannot be distinguished.
    """
    names: dict[int, list[str]] = defaultdict(list)
    for roi in structures.StructureSetROISequence:
        names[int(roi.ROINumber)].append(str(roi.ROIName))
    for number, of_number in names.items():
        if len(of_number) > 1:
            found = f"structures {' and '.join(of_number)} with one number ({number})"
            fix = "get the structure set again"
            raise input_error(structures.filename, found=found, expected="a number for each structure", fix=fix)
    items: dict[int, list[pydicom.Dataset]] = defaultdict(list)
    for item in structures.ROIContourSequence:
        items[int(item.ReferencedROINumber)] += item.get("ContourSequence", ())
    return [(name, items[number]) for number, (name,) in names.items()]


def mask_of(contours: Iterable[Contour], *, shape_xyz: Sequence[int], affine: np.ndarray, where: Path) -> np.ndarray:
    """Return mask_XYZ (uint8): voxels whose centre lies inside the contours drawn on their slice.

    A contour inside another one of its slice cuts a hole, separate and overlapping ones add up, and one that is stored
    twice counts once; those of the type CLOSEDPLANAR_XOR are combined by exclusive or. No contours give an empty mask.
    A warning names the slices (from 0) with a contour that holds the centre of no voxel, and those where nothing is
    left.

    Raises:
        InputError: a contour is not on a slice, or no contour holds the centre of a voxel.
    """
    contours = list(contours)
    levels: set[int] = set()
    unresolved: set[int] = set()
    mask = np.zeros(shape_xyz, dtype=bool)
    exclusive = np.zeros(shape_xyz, dtype=bool)
    earlier: dict[int, list[np.ndarray]] = defaultdict(list)
    to_voxels = np.linalg.inv(affine) @ LPS_TO_RAS
    centres = np.stack(np.meshgrid(*map(np.arange, shape_xyz[:2]), indexing="ij"), axis=-1).reshape(-1, 2)
    for points_mm, is_exclusive in contours:
        points = points_mm @ to_voxels[:3, :3].T + to_voxels[:3, 3]
        level = round(float(points[:, 2].mean()))
        if np.abs(points[:, 2] - level).max() > OFF_SLICE_TOLERANCE or not 0 <= level < shape_xyz[2]:
            found = f"a contour at slice {points[:, 2].min():.2f} to {points[:, 2].max():.2f} of {shape_xyz[2]}"
            raise input_error(
                where,
                found=found,
                expected="contours on slices of the image",
                fix="get the structure set of this series",
            )
        area_XY = Polygon(points[:, :2]).contains_points(centres).reshape(shape_xyz[:2])
        levels.add(level)
        if not area_XY.any():
            unresolved.add(level)
        if is_exclusive:
            exclusive[:, :, level] ^= area_XY
            continue
        if any(np.array_equal(area_XY, other_XY) for other_XY in earlier[level]):
            continue
        if any(_overlap(area_XY, other_XY) for other_XY in earlier[level]):
            mask[:, :, level] |= area_XY
        else:
            mask[:, :, level] ^= area_XY
        earlier[level].append(area_XY)
    mask |= exclusive
    if contours and not mask.any():
        raise input_error(
            where,
            found=f"{len(contours)} contour(s) without the centre of a voxel",
            expected="a structure that the image resolves",
            fix="get the structure set of this series, or choose another structure",
        )
    unresolved |= {level for level in levels if not mask[:, :, level].any()}
    if unresolved:
        slices = ", ".join(map(str, sorted(unresolved)))
        log.warning(
            "%s: contours that hold the centre of no voxel, so nothing of them is drawn: slice %s", where, slices
        )
    return mask.astype(np.uint8)


def _overlap(first_XY: np.ndarray, second_XY: np.ndarray) -> bool:
    """Tell whether two areas share voxels and neither lies inside the other."""
    shared = np.count_nonzero(first_XY & second_XY)
    return bool(0 < shared < min(np.count_nonzero(first_XY), np.count_nonzero(second_XY)))
