"""The torso phantom: one anatomy of chest, abdomen and pelvis, seen by CT and by PET/CT.

Every CT task images the same kind of body; they differ in the field of view, the contrast phase, which disease is
frequent and which structures are labelled. Sizes are those of a coarse adult; thin organs are drawn thicker than life,
so that they survive voxels of 6 mm. Positions: origin in the spine's plane at the first lumbar vertebra, millimetres,
x right, y front, z head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segbench.data.phantoms.shapes import (
    Grid,
    Tissues,
    acquire,
    bias_field,
    ellipsoid,
    place_lumps,
    random_grid,
    rotation_about,
    septa,
    smooth_noise,
    tube,
    warp,
)

# Tissue -> attenuation in Hounsfield units at a late arterial to portal venous phase. Many are equal on purpose:
# liver = spleen, kidney = vessels = vertebra, pancreas = heart, liver tumour = gallbladder = cyst, lung tumour =
# muscle, colon tumour = kidney, and the well perfused tumours of kidney and pancreas = rib.
HOUNSFIELD = {
    "outside": -1000,
    "fat": -100,
    "muscle": 60,
    "lung": -780,
    "rib": 260,
    "vertebra": 205,
    "canal": 25,
    "disc": 85,
    "pelvis": 240,
    "heart": 140,
    "liver": 120,
    "spleen": 125,
    "right kidney": 190,
    "left kidney": 190,
    "gallbladder": 12,
    "stomach": 50,
    "stomach wall": 85,
    "esophagus": 55,
    "pancreas": 145,
    "right adrenal gland": 75,
    "left adrenal gland": 75,
    "aorta": 190,
    "inferior vena cava": 165,
    "portal vein and splenic vein": 185,
    "hepatic vessel": 245,
    "colon": -20,
    "colon wall": 85,
    "bowel": 60,
    "bladder": 8,
    "cyst": 5,
    "liver tumour": 5,
    "kidney tumour": 290,
    "pancreas tumour": 265,
    "colon tumour": 175,
    "lung tumour": 35,
    "lung vessel": 60,
    "node": 50,
    "bone lesion": 215,
}

# Tissue -> uptake of the tracer in standardised uptake values; others take BACKGROUND_UPTAKE.
UPTAKE = {
    "outside": 0.0,
    "fat": 0.3,
    "lung": 0.5,
    "muscle": 0.7,
    "liver": 2.4,
    "spleen": 2.0,
    "right kidney": 5.0,
    "left kidney": 5.0,
    "bladder": 11.0,
    "heart": 4.5,
    "bowel": 1.8,
    "colon": 2.5,
    "colon wall": 2.5,
    "vertebra": 1.6,
}
BACKGROUND_UPTAKE = 1.1

SOFT_ORGANS = ("liver", "spleen", "right kidney", "left kidney", "pancreas")
LIVER = ("liver", "hepatic vessel")
KIDNEYS = ("right kidney", "left kidney")
TUMOURS = (*(name for name in HOUNSFIELD if name.endswith("tumour")), "node", "bone lesion")


@dataclass(frozen=True)
class View:
    """How one task images the torso: field of view in mm, and which tumours every patient has."""

    centre_mm: tuple[float, float, float]
    extent_mm: tuple[float, float, float]
    disease: tuple[str, ...] = ()
    in_plane_mm: tuple[float, float] = (5.6, 7.0)
    slice_mm: tuple[float, float] = (6.0, 9.0)
    shift_mm: tuple[float, float, float] = (12.0, 10.0, 22.0)


VIEWS = {
    "liver": View((0, 0, 30), (300, 230, 220), ("liver tumour",)),
    "kidney": View((0, -5, -15), (300, 230, 210), ("kidney tumour",)),
    "hepatic_vessel": View((10, 0, 35), (290, 230, 190), ("liver tumour",)),
    "pancreas": View((0, 0, 5), (280, 230, 190), ("pancreas tumour",)),
    "colon": View((0, 0, -70), (300, 230, 240), ("colon tumour",)),
    "lung": View((0, 0, 115), (300, 230, 220), ("lung tumour",)),
    "spleen": View((-10, 0, 30), (290, 230, 200)),
    "vertebrae": View((0, -45, 20), (220, 200, 230), shift_mm=(10.0, 8.0, 70.0)),
    "abdomen13": View((0, 0, 15), (300, 230, 230)),
    "petct": View((0, 0, 0), (310, 240, 400), in_plane_mm=(7.0, 8.4), slice_mm=(9.0, 11.0)),
}


def ct_phantom(task: str, rng: np.random.Generator) -> tuple[np.ndarray, Tissues, np.ndarray]:
    """Return a CT volume in Hounsfield units, shape (X, Y, Z), its tissues and its affine."""
    view = VIEWS[task]
    tissues, grid = _patient(view, rng)
    _disease(tissues, rng, view.disease)
    return _hounsfield(tissues, rng), tissues, grid.affine


def petct_phantom(rng: np.random.Generator, *, lesions: bool) -> tuple[np.ndarray, Tissues, np.ndarray]:
    """Return CT (HU) and PET (hundredths of SUV) on one grid, shape (X, Y, Z, 2), its tissues and its affine.

    With `lesions` there are two to five avid ones in liver, lung, bone or nodes; without, there is none. Kidneys,
    bladder, heart and an inflamed piece of bowel take up as much as lesions do.
    """
    tissues, grid = _patient(VIEWS["petct"], rng)
    sites = (("liver tumour", LIVER), ("lung tumour", ("lung",)), ("node", ("fat",)), ("bone lesion", ("vertebra",)))
    for index in rng.integers(len(sites), size=int(rng.integers(2, 6)) if lesions else 0):
        name, host = sites[index]
        over = ("fat", "muscle", "bowel", "canal", "disc", *host)
        place_lumps(tissues, name, rng, host=host, over=over, count=1, radius_mm=(16, 27))
    return np.stack([_hounsfield(tissues, rng), 100 * _uptake(tissues, rng)], axis=-1), tissues, grid.affine


def _patient(view: View, rng: np.random.Generator) -> tuple[Tissues, Grid]:
    """Return the healthy tissues of a new patient (cysts aside) on a grid over the view."""
    centre = np.asarray(view.centre_mm) + rng.uniform(-1, 1, size=3) * view.shift_mm
    grid = random_grid(
        rng, centre_mm=centre, extent_mm=view.extent_mm, in_plane_mm=view.in_plane_mm, slice_mm=view.slice_mm
    )
    canonical = warp(grid.points() / rng.uniform(0.86, 1.1, size=3), rng, amplitude_mm=4.5, wavelength_mm=130)
    tissues = Tissues(canonical)
    for paint in (_body, _chest, _bowel, _upper_abdomen, _retroperitoneum, _vessels, _spine):
        paint(tissues, rng)
    if rng.random() < 0.5:
        place_lumps(tissues, "cyst", rng, host=("liver", *KIDNEYS), over=SOFT_ORGANS, count=1, radius_mm=(9, 15))
    return tissues, grid


def _near(rng: np.random.Generator, position_mm: Sequence[float], by_mm: float) -> np.ndarray:
    return np.asarray(position_mm, float) + rng.uniform(-by_mm, by_mm, size=np.shape(position_mm))


def _organ(
    tissues: Tissues,
    rng: np.random.Generator,
    name: str,
    *,
    centre: Sequence[float],
    radii: Sequence[float],
) -> np.ndarray:
    """Paint an ellipsoidal organ of varied position, size and tilt; return its level."""
    turn = rotation_about(2, rng.uniform(-15, 15)) @ rotation_about(1, rng.uniform(-12, 12))
    size = np.asarray(radii) * rng.uniform(0.85, 1.15, size=3)
    level = ellipsoid(tissues.points_XYZ3, _near(rng, centre, 12.0), size, exponent=2.2, rotation=turn)
    tissues.paint(name, level < 1)
    return level


def _body(tissues: Tissues, rng: np.random.Generator) -> None:
    points = tissues.points_XYZ3
    fat = rng.uniform(0.86, 0.95)
    level = ellipsoid(points, (0, 0, 0), (138, 106, np.inf), exponent=2.5)
    for name, size in (("fat", 1.0), ("muscle", fat), ("fat", fat - 0.1)):
        tissues.paint(name, level < size)
    tissues.paint("muscle", (ellipsoid(points, (0, -80, 0), (60, 34, np.inf), exponent=3) < 1) & (level < fat))
    oblique = np.mod(points[..., 2] - 0.35 * points[..., 1] + rng.uniform(0, 26), 26) < 11
    chest = (points[..., 2] > 15) & (level > fat - 0.11) & (level < fat - 0.02)
    tissues.paint("rib", chest & oblique)
    for side in (-1, 1):
        wing = ellipsoid(points, (side * 85, -45, -165), (22, 45, 55))
        tissues.paint("pelvis", (wing < 1) & (level < fat))


def _chest(tissues: Tissues, rng: np.random.Generator) -> None:
    points = tissues.points_XYZ3
    for side in (-1, 1):
        radii = np.array([54, 74, 108]) * rng.uniform(0.92, 1.06)
        level = ellipsoid(points, (side * 64, 0, 125), radii, exponent=2.6)
        tissues.paint("lung", level < 1, over=("fat", "muscle"))
        for _ in range(5):
            tip = np.array([side * 64, 0, 120]) + rng.uniform(-1, 1, size=3) * (35, 50, 75)
            tissues.paint("lung vessel", tube(points, [(side * 16, -8, 115), tip], (8, 3.5)) < 1, over=("lung",))
    _organ(tissues, rng, "heart", centre=(-16, 26, 92), radii=(46, 40, 46))
    line = [(0, -22, 240), (-2, -16, 130), (-14, -4, 62), (-36, 14, 44)]
    tissues.paint("esophagus", tube(points, _near(rng, line, 3), 11) < 1)


def _bowel(tissues: Tissues, rng: np.random.Generator) -> None:
    points = tissues.points_XYZ3
    centre = _near(rng, (0, 22, -85), 8)
    region = ellipsoid(points, centre, (78, 55, 62), exponent=3) < 1
    loops = septa(points, rng, wavelength_mm=70) + 0.6 * septa(points, rng, wavelength_mm=45)
    tissues.paint("bowel", region & (loops > -0.25))
    tissues.paint("bladder", ellipsoid(points, _near(rng, (0, 30, -178), 8), (38, 32, 30)) < 1)
    frame = [
        (80, 0, -125),
        (90, -8, -35),
        (72, 42, -22),
        (0, 64, -45),
        (-70, 45, -8),
        (-98, -12, -25),
        (-92, -5, -120),
        (-40, 0, -150),
        (-5, -35, -170),
        (0, -45, -230),
    ]
    level = tube(points, _near(rng, frame, 7), rng.uniform(17, 21))
    tissues.paint("colon wall", level < 1)
    tissues.paint("colon", level < 0.66)


def _upper_abdomen(tissues: Tissues, rng: np.random.Generator) -> None:
    points = tissues.points_XYZ3
    _organ(tissues, rng, "spleen", centre=(-88, -32, 34), radii=(27, 42, 44))
    level = _organ(tissues, rng, "stomach wall", centre=(-48, 30, 22), radii=(36, 38, 42))
    tissues.paint("stomach", level < 0.74)
    size = np.array([66, 72, 62]) * rng.uniform(0.85, 1.12, size=3)
    right = ellipsoid(points, _near(rng, (60, 8, 36), 12), size, exponent=2.6)
    size = np.array([58, 30, 30]) * rng.uniform(0.8, 1.15, size=3)
    left = ellipsoid(points, _near(rng, (4, 44, 50), 12), size)
    tissues.paint("liver", (np.minimum(right, left) < 1) & ~tissues.mask("rib", "muscle", "outside"))
    _organ(tissues, rng, "gallbladder", centre=(44, 50, -12), radii=(16, 18, 26))


def _retroperitoneum(tissues: Tissues, rng: np.random.Generator) -> None:
    points = tissues.points_XYZ3
    for name, side in (("right", 1), ("left", -1)):
        centre = (side * 62, -48, -28 - 8 * side)
        level = _organ(tissues, rng, f"{name} kidney", centre=centre, radii=(27, 25, 48))
        tissues.paint("fat", (level < 0.6) & (side * points[..., 0] < 50), over=(f"{name} kidney",))
        adrenal = _near(rng, [(side * 36, -36, 40), (side * 44, -24, 24), (side * 52, -44, 26)], 4)
        tissues.paint(f"{name} adrenal gland", tube(points, adrenal, 8.5) < 1)
    line = [(34, 8, -36), (34, 16, -10), (4, 24, 0), (-28, 8, 8), (-66, -14, 20)]
    radius = np.array([20, 19, 16, 17, 15]) * rng.uniform(0.9, 1.15)
    tissues.paint("pancreas", tube(points, _near(rng, _near(rng, (0, 0, 0), 8) + np.asarray(line), 5), radius) < 1)


def _vessels(tissues: Tissues, rng: np.random.Generator) -> None:
    points = tissues.points_XYZ3
    portal = _near(rng, [(18, 2, -50), (14, 4, 2), (24, -2, 22), (52, 12, 40)], 3)
    splenic = _near(rng, [(14, 2, 2), (-26, -8, 14), (-72, -28, 26)], 4)
    veins = "portal vein and splenic vein"
    tissues.paint(veins, tube(points, portal, 9.5) < 1)
    tissues.paint(veins, tube(points, splenic, 8) < 1, over=("fat", "pancreas", "stomach wall"))
    root = np.array([52, 12, 40])
    for direction in ((45, 35, 12), (48, -40, 8), (25, 5, 48), (-55, 30, 14), (30, 30, -40)):
        middle = root + np.asarray(direction) * 0.55
        line = _near(rng, [root, middle, root + direction], 7)
        tissues.paint("hepatic vessel", tube(points, line, (13, 11, 8)) < 1, over=("liver",))
    aorta = _near(rng, [(-12, -30, -150), (-13, -30, 0), (-16, -32, 260)], 4)
    tissues.paint("aorta", tube(points, aorta, 13) < 1)
    cava = _near(rng, [(20, -28, -150), (22, -26, 0), (26, -16, 96)], 4)
    tissues.paint("inferior vena cava", tube(points, cava, 13.5) < 1)


def _spine(tissues: Tissues, rng: np.random.Generator) -> None:
    points = tissues.points_XYZ3
    x, y, z = np.moveaxis(points, -1, 0)
    height = rng.uniform(34, 42)
    level = np.mod(z + rng.uniform(0, height), height)
    is_bone = level > 0.2 * height
    tissues.paint("disc", ellipsoid(points, (0, -62, 0), (24, 20, np.inf), exponent=2.5) < 1)
    tissues.paint("vertebra", is_bone, over=("disc",))
    arch = (ellipsoid(points, (0, -84, 0), (19, 15, np.inf)) < 1) & (level > 0.35 * height)
    processes = (np.abs(x) < 7) & (y > -106) & (y < -88) | (np.abs(x) < 42) & (np.abs(y + 82) < 8)
    tissues.paint("vertebra", arch | processes & (level > 0.4 * height) & (level < 0.85 * height))
    tissues.paint("canal", ellipsoid(points, (0, -85, 0), (10, 7.5, np.inf)) < 1)


def _disease(tissues: Tissues, rng: np.random.Generator, frequent: Sequence[str]) -> None:
    """Paint the task's own tumours, and in one patient of four an incidental one that the task does not label."""
    several = int(rng.integers(1, 3))
    soft = ("fat", "bowel")
    # tumour -> where it begins, what it replaces, how many, radius in mm
    plans = {
        "liver tumour": (LIVER, LIVER, several, (21, 33)),
        "kidney tumour": (KIDNEYS, (*KIDNEYS, *soft), 1, (25, 35)),
        "pancreas tumour": (("pancreas",), ("pancreas", *soft), 1, (20, 28)),
        "colon tumour": (("colon",), ("colon", "colon wall", *soft), 1, (24, 33)),
        "lung tumour": (("lung",), ("lung", "lung vessel"), several, (15, 27)),
    }
    incidental = [str(rng.choice(list(plans)))] if rng.random() < 0.25 else []
    for name in [*incidental, *frequent]:
        host, over, count, radius_mm = plans[name]
        place_lumps(tissues, name, rng, host=host, over=over, count=count, radius_mm=radius_mm)


def _hounsfield(tissues: Tissues, rng: np.random.Generator) -> np.ndarray:
    """Return attenuation with the patient's own contrast phase, tissue texture, partial volume and noise."""
    table = {name: value + rng.normal(scale=7) for name, value in HOUNSFIELD.items()}
    phase = rng.uniform(0.75, 1.2)
    for name in ("aorta", "inferior vena cava", "portal vein and splenic vein", "hepatic vessel", *KIDNEYS, "heart"):
        table[name] = table[name] * phase
    # Oral contrast, water or gas: what a hollow organ holds says nothing about which organ it is.
    for name in ("stomach", "colon", "bowel"):
        table[name] = HOUNSFIELD[name] + float(rng.choice([-120, 0, 20, 120]))
    signal = tissues.values(table)
    shape = signal.shape
    signal += np.where(tissues.mask("outside", "lung"), 0, 9) * smooth_noise(shape, rng, sigma_voxels=2.0)
    signal += np.where(tissues.mask("stomach", "colon", "bowel"), 45, 0) * smooth_noise(shape, rng, sigma_voxels=1.5)
    signal += np.where(tissues.mask("vertebra", "rib", "pelvis"), 50, 0) * smooth_noise(shape, rng, sigma_voxels=1.0)
    signal += np.where(tissues.mask("lung"), 40, 0) * smooth_noise(shape, rng, sigma_voxels=1.0)
    signal += np.where(tissues.mask(*TUMOURS), 60, 0) * septa(tissues.points_XYZ3, rng, wavelength_mm=36)
    return acquire(signal, rng, blur_voxels=0.45, noise=float(rng.uniform(10, 18)), rician=False)


def _uptake(tissues: Tissues, rng: np.random.Generator) -> np.ndarray:
    """Return standardised uptake values: blurred more than CT, with noise that grows with the signal."""
    table = {name: UPTAKE.get(name, BACKGROUND_UPTAKE) * rng.uniform(0.8, 1.2) for name in tissues.names}
    table |= {name: float(rng.uniform(5, 11)) for name in ("heart",) if rng.random() < 0.6}
    table |= {name: float(rng.uniform(5.5, 11)) for name in TUMOURS}
    signal = tissues.values(table)
    hot = ellipsoid(tissues.points_XYZ3, _near(rng, (0, 22, -85), 45), (22, 20, 22)) < 1
    signal[hot & tissues.mask("bowel", "colon", "colon wall", "fat")] = rng.uniform(4, 9)
    signal *= bias_field(tissues.points_XYZ3, rng, strength=0.04)
    seen = acquire(signal, rng, blur_voxels=0.75, noise=0.0, rician=False)
    return np.clip(seen + 0.12 * np.sqrt(seen + 0.1) * smooth_noise(seen.shape, rng, sigma_voxels=0.7), 0, None)
