"""Write a DICOM series and an RTSTRUCT, as small as their readers allow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, RTStructureSetStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def oblique_affine(spacing_mm_xyz: Sequence[float], *, degrees: float = 20.0) -> np.ndarray:
    """A RAS affine turned about two axes, x cross y along z as DICOM slices are stacked."""
    angle = np.deg2rad(degrees)
    about_z = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    about_x = [[1, 0, 0], [0, np.cos(angle / 2), -np.sin(angle / 2)], [0, np.sin(angle / 2), np.cos(angle / 2)]]
    affine = np.eye(4)
    affine[:3, :3] = np.array(about_z) @ about_x @ np.diag(spacing_mm_xyz)
    affine[:3, 3] = (-31.25, 12.5, 40.75)
    return affine


def write_series(folder: Path, volume_XYZ: np.ndarray, affine: np.ndarray, *, description: str, uid: str) -> list[Path]:
    """Write one file per slice, uint16; names run against the order of positions."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = RAS_TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    paths = []
    for index in range(volume_XYZ.shape[2]):
        path = folder / f"1-{(7 * index) % 1000:03d}.dcm"
        item = _new(path, MRImageStorage, modality="MR", uid=uid)
        item.SeriesDescription = description
        item.ImageOrientationPatient = _numbers([*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])])
        item.ImagePositionPatient = _numbers(lps[:3, 3] + index * lps[:3, 2])
        item.PixelSpacing = _numbers([spacing[1], spacing[0]])
        item.Rows, item.Columns = volume_XYZ.shape[1], volume_XYZ.shape[0]
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.BitsAllocated = item.BitsStored = 16
        item.HighBit, item.PixelRepresentation = 15, 0
        item.PixelData = np.ascontiguousarray(volume_XYZ[:, :, index].T, dtype=np.uint16).tobytes()
        item.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def write_structures(path: Path, structures: dict[str, list[np.ndarray]], affine: np.ndarray, *, series: str) -> None:
    """Write an RTSTRUCT drawn on a series; contours are N x 3 voxel coordinates of the affine's grid."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lps = RAS_TO_LPS @ affine
    item = _new(path, RTStructureSetStorage, modality="RTSTRUCT", uid=generate_uid())
    referenced, study, frame = Dataset(), Dataset(), Dataset()
    referenced.SeriesInstanceUID = series
    study.RTReferencedSeriesSequence = Items([referenced])
    frame.RTReferencedStudySequence = Items([study])
    item.ReferencedFrameOfReferenceSequence = Items([frame])
    item.StructureSetROISequence, item.ROIContourSequence = Items(), Items()
    for number, (name, contours) in enumerate(structures.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, drawn.ReferencedROINumber = number, name, number
        drawn.ContourSequence = Items()
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(points)
            contour.ContourData = _numbers((points @ lps[:3, :3].T + lps[:3, 3]).ravel())
            drawn.ContourSequence.append(contour)
        item.StructureSetROISequence.append(roi)
        item.ROIContourSequence.append(drawn)
    item.save_as(path, enforce_file_format=True)


def rectangle(x: tuple[float, float], y: tuple[float, float], z: float) -> np.ndarray:
    """Corners of a rectangle on a slice, in voxel coordinates."""
    return np.array([[x[0], y[0], z], [x[1], y[0], z], [x[1], y[1], z], [x[0], y[1], z]])


def _new(path: Path, kind: str, *, modality: str, uid: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    item.SOPClassUID, item.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    item.Modality, item.SeriesInstanceUID = modality, uid
    return item


def _numbers(values) -> list[str]:
    """Decimal strings as DICOM stores them, 16 characters at most."""
    return [format_number_as_ds(float(value)) for value in values]
