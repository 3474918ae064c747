"""A copy of an image is recognised after each change that people make, and other patients are not."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from segbench.data.audit.fingerprint import fingerprint, fingerprints_of, same_images
from segbench.data.phantoms.world import make_case
from tests.paths import SHARED

REAL = SHARED / "realdata"
REAL_IMAGES = (
    "Spleen_CT_sample/imagesTr/spleen_2.nii.gz",
    "ACDC_CineMR/imagesTr/patient011.nii.gz",
    "Task04_Hippocampus/imagesTr/hippocampus_001.nii.gz",
)
PHANTOMS = ("phantom_liver", "phantom_brain", "phantom_prostate")


def inner(volume: np.ndarray, fraction: float, *, start: float = 0.5) -> np.ndarray:
    """Keep a fraction of every axis; start: 0 cuts the far end alone, 0.5 both ends."""
    kept = [round(size * fraction) for size in volume.shape]
    first = [round((size - keep) * start) for size, keep in zip(volume.shape, kept, strict=True)]
    return volume[tuple(slice(at, at + keep) for at, keep in zip(first, kept, strict=True))]


CHANGES = {
    "flipped": lambda volume: volume[::-1, :, ::-1],
    "axes permuted": lambda volume: volume.transpose(2, 0, 1),
    "cropped by 10 %": lambda volume: inner(volume, 0.9),
    "cropped by 15 %": lambda volume: inner(volume, 0.85),
    "cropped by 15 % at one end": lambda volume: inner(volume, 0.85, start=0.0),
    "scaled and shifted": lambda volume: 0.1 * volume + 50,
    "resampled to 1.5 times the voxels": lambda volume: ndimage.zoom(volume, 1.5, order=1),
    "cast to 16 bits": lambda volume: np.round(volume).astype(np.int16),
    "turned, scaled, cropped by 15 %": lambda volume: inner(0.1 * volume[::-1].transpose(1, 2, 0) + 50, 0.85),
}


def phantom(name: str, index: int) -> np.ndarray:
    """The first channel of a synthetic case."""
    images = np.asarray(make_case(name, index, seed=3)[0], dtype=np.float32)
    return images if images.ndim == 3 else images[..., 0]


def volumes() -> dict[str, np.ndarray]:
    """One channel of each phantom, and the real volumes that are beside this checkout."""
    found = {name: phantom(name, 0) for name in PHANTOMS}
    for name in REAL_IMAGES:
        if (REAL / name).exists():
            found[name] = np.asarray(nib.load(REAL / name).dataobj, dtype=np.float32)
    return found


@pytest.fixture(scope="module")
def originals() -> dict[str, np.ndarray]:
    return volumes()


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_the_same_image(change, originals):
    for name, volume in originals.items():
        copy = np.ascontiguousarray(CHANGES[change](volume), dtype=np.float32)
        assert same_images([fingerprint(volume), fingerprint(copy)]), name


def test_the_header_does_not_matter(tmp_path, originals):
    for number, volume in enumerate(originals.values()):
        paths = [tmp_path / f"{number}{kind}.nii.gz" for kind in "ab"]
        nib.save(nib.Nifti1Image(volume, np.diag([1.0, 1.0, 3.0, 1.0])), paths[0])
        nib.save(nib.Nifti1Image(volume, np.diag([-0.7, 2.2, 1.0, 1.0]) + np.eye(4, k=3) * 90), paths[1])
        assert same_images([fingerprints_of([path])[0] for path in paths])


def test_other_patients_are_other_images(originals):
    prints = [fingerprint(volume) for volume in originals.values()]
    prints += [fingerprint(phantom(name, index)) for name in PHANTOMS for index in (1, 2)]
    assert not same_images(prints)
    assert not [pair for first in prints for pair in same_images([first, fingerprint(np.zeros((9, 9, 9)))])]
