"""The MR phantoms: prostate from several sites, brain tumour in four sequences, vestibular schwannoma.

MR has no absolute unit: tissue contrast is drawn per site or patient around the values below, multiplied by an
arbitrary gain and by a coil's bias field, and made Rician by the noise. Positions in millimetres, x right, y front,
z head, origin at the centre of the organ (prostate) or of the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segbench.data.phantoms.shapes import (
    Tissues,
    acquire,
    bias_field,
    ellipsoid,
    lump,
    place_lumps,
    random_grid,
    rotation_about,
    septa,
    smooth_noise,
    tube,
    warp,
)

Phantom = tuple[np.ndarray, Tissues, np.ndarray]

PROSTATE_T2 = {
    "outside": 0.02,
    "fat": 0.85,
    "muscle": 0.25,
    "bone": 0.55,
    "bladder": 0.95,
    "rectum wall": 0.45,
    "rectum": 0.15,
    "peripheral zone": 0.62,
    "transition zone": 0.45,
    "seminal vesicle": 0.75,
    "levator": 0.3,
    "venous plexus": 0.65,
}


@dataclass(frozen=True)
class Site:
    """Scanner style of one hospital: contrast (gamma of the signal), coil bias, noise, gain, resolution in mm."""

    gamma: float
    bias: float
    noise: float
    gain: float
    in_plane_mm: tuple[float, float]
    slice_mm: tuple[float, float]


SITES = (
    Site(gamma=1.0, bias=0.10, noise=0.03, gain=900, in_plane_mm=(3.0, 3.0), slice_mm=(4.0, 4.0)),
    Site(gamma=0.75, bias=0.22, noise=0.05, gain=220, in_plane_mm=(3.2, 3.4), slice_mm=(5.0, 5.0)),
    Site(gamma=1.5, bias=0.15, noise=0.04, gain=4000, in_plane_mm=(2.8, 3.0), slice_mm=(4.5, 5.5)),
    Site(gamma=0.85, bias=0.20, noise=0.07, gain=100, in_plane_mm=(3.4, 3.6), slice_mm=(3.8, 3.8)),
)

BRAIN_SEQUENCES = ("T1", "T1ce", "T2", "FLAIR")
# Tissue -> signal in each of BRAIN_SEQUENCES.
BRAIN_SIGNAL = {
    "outside": (0.0, 0.0, 0.0, 0.0),
    "fluid": (0.15, 0.15, 1.0, 0.12),
    "grey": (0.50, 0.52, 0.62, 0.66),
    "white": (0.72, 0.74, 0.42, 0.48),
    "deep grey": (0.58, 0.60, 0.56, 0.62),
    "gliosis": (0.58, 0.60, 0.74, 0.80),
    "vessel": (0.35, 1.0, 0.25, 0.35),
    "edema": (0.52, 0.54, 0.78, 0.79),
    "non-enhancing tumour": (0.34, 0.38, 0.78, 0.62),
    "enhancing tumour": (0.44, 0.95, 0.66, 0.72),
}

HEAD_T1CE = {
    "outside": 0.02,
    "scalp": 0.9,
    "skull": 0.12,
    "brain": 0.5,
    "white": 0.58,
    "fluid": 0.15,
    "sinus": 0.92,
    "vessel": 0.9,
    "mucosa": 0.85,
    "bone": 0.2,
    "marrow": 0.75,
    "vestibular schwannoma": 0.88,
}


def prostate_phantom(rng: np.random.Generator, *, site: int) -> Phantom:
    """Return a T2 volume (X, Y, Z) in the arbitrary unit of the site, its tissues and its affine."""
    style = SITES[site % len(SITES)]
    grid = random_grid(
        rng,
        centre_mm=rng.uniform(-12, 12, size=3),
        extent_mm=(150, 140, 125),
        in_plane_mm=style.in_plane_mm,
        slice_mm=style.slice_mm,
        tilt_degrees=12,
    )
    points = warp(grid.points() / rng.uniform(0.9, 1.1), rng, amplitude_mm=2.0, wavelength_mm=80)
    tissues = _pelvis(points, rng)
    table = {name: np.clip(value + rng.normal(scale=0.04), 0.01, 1.2) for name, value in PROSTATE_T2.items()}
    signal = tissues.values(table) * (1 + 0.07 * smooth_noise(points.shape[:3], rng, sigma_voxels=1.2))
    nodules = septa(points, rng, wavelength_mm=30)
    signal = np.clip(signal + 0.12 * np.where(tissues.mask("transition zone"), nodules, 0), 0.01, None) ** style.gamma
    signal *= bias_field(points, rng, strength=style.bias)
    seen = acquire(signal, rng, blur_voxels=0.45, noise=style.noise, rician=True)
    return seen * style.gain * rng.uniform(0.8, 1.25), tissues, grid.affine


def brain_phantom(rng: np.random.Generator) -> Phantom:
    """Return a skull-stripped brain, shape (X, Y, Z, 4) as BRAIN_SEQUENCES, background 0; its tissues, its affine."""
    grid = random_grid(
        rng,
        centre_mm=rng.uniform(-5, 5, size=3),
        extent_mm=(160, 190, 150),
        in_plane_mm=(3.8, 4.6),
        slice_mm=(4.0, 6.0),
        tilt_degrees=8,
    )
    points = warp(grid.points() / rng.uniform(0.9, 1.06, size=3), rng, amplitude_mm=2.5, wavelength_mm=90)
    tissues = _brain(points, rng)
    _glioma(tissues, rng)
    texture = 0.05 * smooth_noise(points.shape[:3], rng, sigma_voxels=1.5)
    core = tissues.mask("non-enhancing tumour", "enhancing tumour")
    clumps = 0.14 * np.where(core, septa(points, rng, wavelength_mm=26), 0)
    channels = []
    for sequence in range(len(BRAIN_SEQUENCES)):
        table = {name: values[sequence] + rng.normal(scale=0.03) for name, values in BRAIN_SIGNAL.items()}
        signal = tissues.values(table) * (1 + texture) + clumps
        signal *= bias_field(points, rng, strength=0.12)
        seen = acquire(signal, rng, blur_voxels=0.45, noise=0.04, rician=True)
        channels.append(seen * rng.uniform(150, 3000))
    volume = np.stack(channels, axis=-1)
    volume[tissues.mask("outside")] = 0
    return volume, tissues, grid.affine


def schwannoma_phantom(rng: np.random.Generator) -> Phantom:
    """Return a contrast-enhanced T1 volume (X, Y, Z) of the skull base, its tissues and its affine."""
    grid = random_grid(
        rng,
        centre_mm=np.array([0, -22, -28]) + rng.uniform(-8, 8, size=3),
        extent_mm=(150, 130, 100),
        in_plane_mm=(2.8, 3.4),
        slice_mm=(3.2, 4.8),
        tilt_degrees=10,
    )
    points = warp(grid.points() / rng.uniform(0.92, 1.08, size=3), rng, amplitude_mm=2.0, wavelength_mm=90)
    tissues = _skull_base(points, rng)
    table = {name: np.clip(value + rng.normal(scale=0.03), 0.01, 1.2) for name, value in HEAD_T1CE.items()}
    signal = tissues.values(table) * (1 + 0.06 * smooth_noise(points.shape[:3], rng, sigma_voxels=1.5))
    signal += 0.1 * np.where(tissues.mask("vestibular schwannoma"), septa(points, rng, wavelength_mm=16), 0)
    signal = np.clip(signal, 0, None) * bias_field(points, rng, strength=0.15)
    seen = acquire(signal, rng, blur_voxels=0.45, noise=0.04, rician=True)
    return seen * rng.uniform(200, 2500), tissues, grid.affine


def _near(rng: np.random.Generator, position_mm: Sequence[float], by_mm: float) -> np.ndarray:
    return np.asarray(position_mm, float) + rng.uniform(-by_mm, by_mm, size=np.shape(position_mm))


def _pelvis(points: np.ndarray, rng: np.random.Generator) -> Tissues:
    """Paint the small pelvis round a prostate at the origin; its size varies threefold in volume."""
    tissues = Tissues(points)
    tissues.paint("fat", ellipsoid(points, (0, -10, 0), (150, 105, np.inf), exponent=2.5) < 1)
    for side in (-1, 1):
        tissues.paint("muscle", ellipsoid(points, (side * 56, 5, -5), (16, 42, 55), exponent=2.5) < 1)
        tissues.paint("bone", ellipsoid(points, _near(rng, (side * 88, 8, 10), 5), (26, 27, 27)) < 1)
        tissues.paint("levator", ellipsoid(points, (side * 36, -8, -32), (7, 30, 28)) < 1)
        vesicle = _near(rng, [(side * 4, -20, 30), (side * 30, -24, 42)], 3)
        tissues.paint("seminal vesicle", tube(points, vesicle, 8) < 1)
        plexus = tube(points, _near(rng, [(side * 34, -8, -22), (side * 37, -4, 24)], 3), 6)
        tissues.paint("venous plexus", plexus < 1)
    tissues.paint("muscle", ellipsoid(points, (0, -75, 0), (75, 25, np.inf), exponent=3) < 1)
    tissues.paint("bone", ellipsoid(points, (0, 48, -18), (34, 12, 18)) < 1)
    bladder = ellipsoid(points, _near(rng, (0, 16, 58), 6), np.array([42, 36, 30]) * rng.uniform(0.8, 1.2))
    tissues.paint("bladder", bladder < 1)
    rectum = tube(points, _near(rng, [(0, -40, -80), (0, -46, -10), (4, -50, 70)], 5), rng.uniform(14, 20))
    tissues.paint("rectum wall", rectum < 1)
    tissues.paint("rectum", rectum < 0.68)
    size = np.array([29, 22, 25]) * rng.uniform(0.82, 1.2, size=3)
    centre = _near(rng, (0, -4, 0), 5)
    level = ellipsoid(points, centre, size, exponent=2.3, rotation=rotation_about(0, rng.uniform(-15, 15)))
    tissues.paint("peripheral zone", level < 1)
    inner = ellipsoid(points, centre + size * np.array([0, 0.25, 0.15]), size * 0.74)
    tissues.paint("transition zone", inner < rng.uniform(0.85, 1.1), over=("peripheral zone",))
    return tissues


def _brain(points: np.ndarray, rng: np.random.Generator) -> Tissues:
    """Paint a brain without tumour: folded cortex, ventricles, deep nuclei, vessels, and harmless bright spots."""
    tissues = Tissues(points)
    folds = 0.05 * septa(points, rng, wavelength_mm=34)
    level = ellipsoid(points, (0, 0, 0), (66, 82, 60), exponent=2.3)
    tissues.paint("fluid", level < 1)
    tissues.paint("grey", level < 0.95)
    tissues.paint("white", level + folds < 0.78)
    tissues.paint("fluid", (np.abs(points[..., 0]) < 2.2) & (level > 0.72) & (level < 1))
    for side in (-1, 1):
        tissues.paint("deep grey", ellipsoid(points, (side * 25, 2, -2), (11, 20, 13)) < 1)
        horn = _near(rng, [(side * 10, 34, 4), (side * 10, 2, 14), (side * 19, -32, 8), (side * 30, -6, -18)], 3)
        ventricle = tube(points, horn, rng.uniform(5, 10))
        tissues.paint("gliosis", ventricle < 1.5, over=("white",))
        tissues.paint("fluid", ventricle < 1)
    sinus = [(0, 74, 10), (0, 30, 56), (0, -40, 48), (0, -76, 5)]
    tissues.paint("vessel", tube(points, sinus, 5) < 1, over=("fluid", "grey", "white"))
    for _ in range(4):
        ends = rng.uniform(-1, 1, size=(3, 3)) * (55, 65, 48)
        tissues.paint("vessel", tube(points, ends, 3.2) < 1, over=("grey", "white", "fluid"))
    spots = int(rng.integers(1, 4))
    place_lumps(tissues, "gliosis", rng, host=("white",), over=("white", "grey"), count=spots, radius_mm=(6, 11))
    return tissues


def _glioma(tissues: Tissues, rng: np.random.Generator) -> None:
    """Paint an oedema with a core inside: an enhancing rim round a part that does not enhance."""
    side = rng.choice((-1, 1))
    centre = np.array([side * 31, 0, 8]) + rng.uniform(-1, 1, size=3) * (9, 38, 20)
    radius = rng.uniform(28, 40)
    outer = lump(tissues.points_XYZ3, centre, radius, rng)
    core = lump(tissues.points_XYZ3, centre + rng.uniform(-4, 4, size=3), radius * rng.uniform(0.58, 0.74), rng)
    soft = ("white", "grey", "deep grey", "gliosis")
    tissues.paint("edema", outer < 1, over=soft)
    tissues.paint("enhancing tumour", core < 1, over=("edema", "fluid", *soft))
    tissues.paint("non-enhancing tumour", core < rng.uniform(0.55, 0.72), over=("enhancing tumour",))


def _skull_base(points: np.ndarray, rng: np.random.Generator) -> Tissues:
    """Paint the lower head with one small tumour at the inner ear canal, left or right."""
    tissues = Tissues(points)
    head = ellipsoid(points, (0, 0, 0), (76, 95, 110), exponent=2.4)
    layers = (("scalp", 1.0), ("skull", 0.93), ("marrow", 0.905), ("skull", 0.89), ("fluid", 0.85), ("brain", 0.83))
    for name, size in layers:
        tissues.paint(name, head < size)
    tissues.paint("white", ellipsoid(points, (0, 10, 5), (45, 55, 40)) < 1)
    tissues.paint("bone", ellipsoid(points, (0, 42, -62), (62, 58, 42)) < 1)
    tissues.paint("mucosa", ellipsoid(points, _near(rng, (0, 52, -48), 5), (22, 26, 18)) < 1)
    tissues.paint("fluid", ellipsoid(points, (0, -8, -30), (40, 24, 20)) < 1)
    tissues.paint("white", ellipsoid(points, (0, -12, -32), (20, 17, 60)) < 1)
    tissues.paint("brain", ellipsoid(points, (0, -50, -40), (52, 33, 28)) < 1)
    for side in (-1, 1):
        tissues.paint("bone", tube(points, [(side * 66, -14, -36), (side * 34, 0, -30)], (17, 8)) < 1)
        line = [(0, -80, -18), (side * 48, -62, -22), (side * 58, -30, -42), (side * 44, -16, -90)]
        tissues.paint("sinus", tube(points, _near(rng, line, 3), rng.uniform(5, 7.5)) < 1)
        carotid = _near(rng, [(side * 16, 12, -80), (side * 18, 18, -20), (side * 45, 22, -6)], 3)
        tissues.paint("vessel", tube(points, carotid, 4.5) < 1)
    side = rng.choice((-1, 1))
    centre = np.array([side * 31, -8, -30]) + rng.uniform(-1, 1, size=3) * (4, 5, 5)
    over = ("fluid", "brain", "white", "bone")
    radius = rng.uniform(9.5, 15)
    tissues.paint("vestibular schwannoma", lump(points, centre, radius, rng) < 1, over=over)
    canal = tube(points, [centre, centre + np.array([side * 1.6 * radius, 0, 0])], (6, 4))
    tissues.paint("vestibular schwannoma", canal < 1, over=("bone",))
    return tissues
