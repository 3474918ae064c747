"""Property tests of the one reader: affine, unit, type, scale, axis order and singleton axes come back as they are."""

import gzip
import itertools
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segbench.core.case import CaseFiles
from segbench.core.errors import InputError
from segbench.core.task import Channel, Structure, Task
from segbench.data.checks import check_case, check_image, header_notices
from segbench.data.geometry import Geometry, write_prediction
from segbench.data.ingest import manifest_row
from segbench.data.preprocess import preprocess_case
from segbench.data.preprocessing_recipes import PreprocessingRecipe
from segbench.data.store import open_case
from segbench.data.volumes import MM_PER_UNIT, UNREADABLE, grid_difference, open_volume, whole_numbers
from segbench.evaluation.label_maps import Pair
from segbench.evaluation.score_files import Request, score_case

SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
CODE_OF_UNIT = {"unknown": 0, "meter": 1, "mm": 2, "micron": 3}
AXIS_ORDERS = [
    np.eye(3)[list(order)] * flips
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


@st.composite
def affines_mm(draw) -> np.ndarray:
    """A grid in mm: spacing, axis order and flips, a turn of up to half a radian, an origin."""
    spacing = [draw(st.floats(0.1, 8)) for _ in range(3)]
    turn = nib.eulerangles.euler2mat(*(draw(st.floats(-0.5, 0.5)) for _ in range(3)))
    matrix = turn @ draw(st.sampled_from(AXIS_ORDERS)) @ np.diag(spacing)
    return nib.affines.from_matvec(matrix, [draw(st.floats(-300, 300)) for _ in range(3)])


def labels_of(shape: tuple[int, ...]) -> np.ndarray:
    """Labels 0, 1, 2 that no flip or axis order maps onto themselves."""
    return np.random.default_rng(5).integers(0, 3, shape).astype(np.uint8)


def save(path: Path, data: np.ndarray, affine_mm: np.ndarray, unit: str = "mm") -> None:
    """Write a NIfTI whose header has its lengths in a unit."""
    affine = np.diag([1 / MM_PER_UNIT[unit]] * 3 + [1.0]) @ affine_mm
    image = nib.Nifti1Image(data, affine)
    image.header["xyzt_units"] = CODE_OF_UNIT[unit]
    nib.save(image, path)


@SETTINGS
@given(
    affine=affines_mm(),
    unit=st.sampled_from(sorted(CODE_OF_UNIT)),
    dtype=st.sampled_from([np.uint8, np.int16, np.int32, np.float32, np.float64]),
    singletons=st.integers(0, 3),
    factor=st.sampled_from([1, 3, 7, 10]),
)
def test_every_header_gives_the_same_labels_on_the_same_grid(affine, unit, dtype, singletons, factor, tmp_path):
    labels = labels_of((5, 4, 3))
    data = (labels * factor).astype(dtype)
    path = tmp_path / "label.nii"
    save(path, data.reshape(data.shape + (1,) * singletons), affine, unit)
    raw = bytearray(path.read_bytes())
    raw[112:120] = struct.pack("<2f", 1 / factor, 0)  # scl_slope, scl_inter
    path.write_bytes(raw)
    volume = open_volume(path)
    assert volume.shape == labels.shape
    assert np.array_equal(whole_numbers(volume.voxels()), labels)
    assert grid_difference((labels.shape, affine), (volume.shape, volume.affine)) is None
    assert np.allclose(volume.affine, affine, rtol=1e-5, atol=1e-3)


@SETTINGS
@given(affine=affines_mm(), unit=st.sampled_from(sorted(CODE_OF_UNIT)), spacing=st.floats(0.5, 6))
def test_a_case_goes_to_the_grid_and_back_on_the_grid_of_its_image(affine, unit, spacing, tmp_path):
    labels = labels_of((6, 5, 4))
    save(tmp_path / "image.nii.gz", labels.astype(np.float32), affine, unit)
    image = open_volume(tmp_path / "image.nii.gz")
    native = min(image.spacing_mm_xyz)
    recipe = PreprocessingRecipe("finer", spacing_mm_zyx=(native / 2,) * 3, crop_to_nonzero=spacing > 2)
    geometry = Geometry.of(image.voxels()[None].astype(np.float32), image.affine, recipe)
    restored = geometry.labels_to_native(geometry.labels_to_grid(labels))
    assert np.array_equal(restored, labels)
    write_prediction(tmp_path / "predicted.nii.gz", restored, like=tmp_path / "image.nii.gz")
    predicted = open_volume(tmp_path / "predicted.nii.gz")
    assert predicted.unit == "mm"
    assert np.array_equal(predicted.voxels(), labels)
    assert grid_difference((labels.shape, image.affine), (predicted.shape, predicted.affine)) is None


@SETTINGS
@given(
    affine=affines_mm(),
    unit=st.sampled_from(sorted(CODE_OF_UNIT)),
    singletons=st.integers(0, 2),
    dtype=st.sampled_from([np.uint8, np.int16, np.float32]),
)
def test_a_case_is_checked_preprocessed_brought_back_and_scored_without_loss(
    affine, unit, singletons, dtype, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("case")
    labels = labels_of((6, 5, 4))
    image = np.random.default_rng(2).normal(0, 300, labels.shape).astype(np.float32)
    save(folder / "image.nii.gz", image.reshape(image.shape + (1,) * singletons), affine, unit)
    save(folder / "label.nii.gz", labels.astype(dtype).reshape(labels.shape + (1,) * singletons), affine, unit)
    files = CaseFiles("a", "a", (folder / "image.nii.gz",), folder / "label.nii.gz")
    problems, seen = check_case(files, {0, 1, 2}, ["CT"])
    assert not problems
    assert seen.labels == {0, 1, 2}
    card = {"merge": {}, "classes": {"1": "x", "2": "y"}, "channels": [{"name": "CT", "modality": "CT"}]}
    structures = (Structure("x", (1,), 1.0), Structure("y", (2,), 1.0))
    task = Task("t", "T", (Channel("CT", "CT"),), ("x", "y"), structures)
    recipe = PreprocessingRecipe("native", clip_hu=(-325.0, 325.0))
    stored = open_case(preprocess_case(manifest_row("t", files), task, card, recipe, store_root=folder / "store"))
    restored = stored.geometry.labels_to_native(stored.labels[:])
    write_prediction(folder / "predicted.nii.gz", restored, like=files.image_paths[0])
    request = Request(structures, frozenset({0, 1, 2}), ("dice", "hd95"))
    pair = Pair("a", files.label_path, folder / "predicted.nii.gz", "a")
    rows = score_case(pair, request).rows
    assert [row["value"] for row in rows] == ["1", "0", "1", "0"]
    volume_mm3 = float(np.count_nonzero(labels == 1) * abs(np.linalg.det(affine[:3, :3])))
    assert float(rows[0]["reference_volume_mm3"]) == pytest.approx(volume_mm3, rel=1e-4)


@SETTINGS
@given(affine=affines_mm(), channels=st.integers(1, 3), suffix=st.sampled_from([".nrrd", ".mha"]))
def test_nrrd_and_metaimage_hold_what_the_nifti_holds(affine, channels, suffix, tmp_path):
    data = np.random.default_rng(1).integers(-900, 900, (5, 4, 3, channels)).astype(np.int16)
    path = tmp_path / f"image{suffix}"
    image = SimpleITK.GetImageFromArray(data.transpose(2, 1, 0, 3), isVector=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    sizes = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(sizes.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / sizes).ravel().tolist())
    SimpleITK.WriteImage(image, str(path), useCompression=True)
    volume = open_volume(path)
    assert np.array_equal(np.stack(volume.channels(), axis=-1), data)
    assert np.allclose(volume.affine, affine, atol=1e-5)
    assert volume.dtype == np.int16
    assert volume.is_oriented


@pytest.mark.parametrize(
    ("suffix", "old", "new"),
    [
        (".nrrd", b"kinds:", b'space units: "um" "um" "um"\nkinds:'),
        (".mha", b"CompressedData", b"DistanceUnits = um\nCompressedData"),
    ],
)
def test_a_unit_of_nrrd_and_metaimage_is_converted(suffix, old, new, tmp_path):
    path = tmp_path / f"image{suffix}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones((3, 4, 5), np.uint8)), str(path))
    path.write_bytes(path.read_bytes().replace(old, new))
    assert np.allclose(open_volume(path).spacing_mm_xyz, 0.001)


@pytest.mark.parametrize(
    ("words", "mm_per_unit"),
    [("microns", 0.001), ("\u03bcm", 0.001), ("millimeters", 1.0), ("cm", 10.0), ("metres", 1000.0)],
)
def test_an_image_in_any_unit_of_nrrd_is_accepted(words, mm_per_unit, tmp_path):
    image = SimpleITK.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    image.SetSpacing([0.5 / mm_per_unit, 0.6 / mm_per_unit, 0.9 / mm_per_unit])
    SimpleITK.WriteImage(image, str(tmp_path / "a.nrrd"))
    raw = (tmp_path / "a.nrrd").read_bytes()
    units = f'space units: "{words}" "{words}" "{words}"\nkinds:'.encode()
    (tmp_path / "a.nrrd").write_bytes(raw.replace(b"kinds:", units))
    problems, _ = check_image([tmp_path / "a.nrrd"], ["MR"])
    assert not problems
    assert np.allclose(open_volume(tmp_path / "a.nrrd").spacing_mm_xyz, (0.5, 0.6, 0.9))


def test_spacings_of_nan_are_none(tmp_path):
    head = b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nspacings: nan nan nan\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(head + bytes(8))
    assert not open_volume(tmp_path / "a.nrrd").has_spacing


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("packed", [True, False])
def test_damaged_voxels_of_nrrd_and_metaimage_are_no_voxels(suffix, packed, tmp_path, capfd):
    labels = np.random.default_rng(0).integers(0, 3, (20, 30, 40)).astype(np.uint8)
    path = tmp_path / f"a{suffix}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(labels), str(path), packed)
    whole = path.read_bytes()
    assert np.array_equal(open_volume(path).voxels(), labels.T)
    changed = bytearray(whole)
    changed[len(whole) * 2 // 3] ^= 0x55
    for damaged in [whole[: len(whole) * 2 // 3], *([bytes(changed)] if packed else [])]:
        path.write_bytes(damaged)
        with pytest.raises(UNREADABLE):
            open_volume(path).voxels()
    assert not capfd.readouterr().err
    if packed and suffix == ".mha":
        path.write_bytes(whole.replace(b"CompressedDataSize", b"Comment"))
        with pytest.raises(OSError, match="without CompressedDataSize"):
            open_volume(path).voxels()


def test_an_unknown_unit_and_voxels_in_a_second_file_are_refused(tmp_path):
    save(tmp_path / "a.nii", labels_of((3, 3, 3)), np.eye(4))
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[123] = 5
    (tmp_path / "a.nii").write_bytes(raw)
    with pytest.raises(InputError, match="unit of length 5"):
        open_volume(tmp_path / "a.nii")
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\ndata file: a.raw\n\n")
    nib.save(nib.analyze.AnalyzeImage(labels_of((3, 3, 3)), None), tmp_path / "b.img")
    for name in ("a.nrrd", "b.img", "b.hdr"):
        with pytest.raises(InputError, match="second file"):
            open_volume(tmp_path / name)


def test_a_prediction_without_orientation_lies_where_its_image_lies(tmp_path):
    image = nib.Nifti1Image(labels_of((4, 3, 2)), None)
    image.header["pixdim"][1:4] = 2, 3, 4
    nib.save(image, tmp_path / "image.nii.gz")
    assert not open_volume(tmp_path / "image.nii.gz").is_oriented
    write_prediction(tmp_path / "p.nii.gz", labels_of((4, 3, 2)), like=tmp_path / "image.nii.gz")
    first, second = (nib.load(tmp_path / name).header for name in ("image.nii.gz", "p.nii.gz"))
    for key in ("sform_code", "qform_code"):
        assert first[key] == second[key] == 0
    assert np.array_equal(first["pixdim"][1:4], second["pixdim"][1:4])


@pytest.mark.parametrize(
    ("codes", "changed", "notice"),
    [
        ((1, 0), {76: (0.0,)}, ""),  # a qfac of 0 is 1
        ((1, 1), {76: (0.0,)}, ""),
        ((1, 1), {80: (-2.0, -2.0)}, "pixdim and affine"),
        ((1, 1), {256: (0.9, 0.9, 0.9)}, "the qform is no affine (the sform is used)"),
        ((1, 1), {256: (float("nan"), 0.0, 0.0)}, "the qform is no affine (the sform is used)"),
        ((0, 99), {}, "no sform, qform or space"),
        ((-1, -1), {}, "no sform, qform or space"),
    ],
)
def test_forms_that_programs_wrote_wrong_give_a_notice_and_a_prediction_on_their_grid(
    codes, changed, notice, tmp_path, capfd
):
    image = nib.Nifti1Image(labels_of((4, 3, 2)), np.diag([2.0, 2.0, 3.0, 1.0]))
    image.set_qform(image.affine, code=1)
    nib.save(image, tmp_path / "image.nii")
    raw = bytearray((tmp_path / "image.nii").read_bytes())
    raw[252:256] = struct.pack("<2h", *codes)
    for offset, values in changed.items():
        raw[offset : offset + 4 * len(values)] = struct.pack(f"<{len(values)}f", *values)
    (tmp_path / "image.nii").write_bytes(raw)
    volume = open_volume(tmp_path / "image.nii")
    notices = list(header_notices(volume))
    assert len(notices) == bool(notice)
    assert notice in " ".join(notices)
    write_prediction(tmp_path / "p.nii", labels_of((4, 3, 2)), like=tmp_path / "image.nii")
    predicted = open_volume(tmp_path / "p.nii")
    assert grid_difference((volume.shape, volume.affine), (predicted.shape, predicted.affine)) is None
    assert predicted.is_oriented == volume.is_oriented
    assert not capfd.readouterr().err  # of nibabel, which names no file


def test_a_qform_that_is_no_rotation_is_refused_where_there_is_no_sform(tmp_path):
    save(tmp_path / "a.nii", labels_of((4, 3, 2)), np.eye(4))
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[252:268] = struct.pack("<2h3f", 1, 0, 0.9, 0.9, 0.9)
    (tmp_path / "a.nii").write_bytes(raw)
    with pytest.raises(InputError, match="longer than 1"):
        open_volume(tmp_path / "a.nii")


def test_a_fraction_stays_a_fraction():
    assert np.array_equal(whole_numbers(np.array([1.00000001, 2.0])), [1, 2])
    assert np.array_equal(whole_numbers(np.array([0.5, 1.001])), [0.5, 1.001])


def test_a_compressed_file_is_read_to_its_checksum(tmp_path):
    save(tmp_path / "a.nii.gz", labels_of((5, 4, 3)), np.eye(4))
    whole = (tmp_path / "a.nii.gz").read_bytes()
    assert np.array_equal(open_volume(tmp_path / "a.nii.gz").voxels(), labels_of((5, 4, 3)))
    stored = gzip.compress(gzip.decompress(whole), compresslevel=0)
    damaged = bytearray(stored)
    damaged[-20] ^= 1  # one bit of one voxel
    for content in (bytes(damaged), whole[:-8] + b"\0" * 8, whole[:-4], whole[:-9]):
        (tmp_path / "b.nii.gz").write_bytes(content)
        with pytest.raises(UNREADABLE):
            open_volume(tmp_path / "b.nii.gz").voxels()


def test_a_name_that_does_not_say_how_the_file_is_stored_is_refused(tmp_path):
    save(tmp_path / "a.nii.gz", labels_of((5, 4, 3)), np.eye(4))
    whole = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "b.nii").write_bytes(whole)
    (tmp_path / "c.nii.gz").write_bytes(gzip.decompress(whole))
    with pytest.raises(InputError, match=r"rename it to \.nii\.gz$"):
        open_volume(tmp_path / "b.nii")
    with pytest.raises(InputError, match=r"rename it to \.nii$"):
        open_volume(tmp_path / "c.nii.gz")


NRRD = "NRRD0004\ntype: uint8\ndimension: {}\nsizes: {}\n{}encoding: raw\n\n"
DIRECTIONS = "space directions: {}(2,0,0) (0,2,0) (0,0,3){}\nspace origin: (0,0,0)\n"
LPS = "space: left-posterior-superior\n"


@pytest.mark.parametrize(
    ("fields", "axes", "notice"),
    [
        (LPS + DIRECTIONS.format("", ""), (4, 3, 2), ""),
        (LPS + DIRECTIONS.format("none ", "") + "kinds: list domain domain domain\n", (1, 4, 3, 2), ""),
        (LPS + DIRECTIONS.format("", " none") + "kinds: domain domain domain list\n", (4, 3, 2, 1), ""),
        ("space dimension: 3\n" + DIRECTIONS.format("", ""), (4, 3, 2), "does not say how the axes lie"),
        ("space: scanner-xyz\n" + DIRECTIONS.format("", ""), (4, 3, 2), "does not say how the axes lie"),
        ("spacings: 2 2 3\n", (4, 3, 2), "does not say how the axes lie"),
        ("", (4, 3, 2), "does not say the voxel sizes"),
    ],
)
def test_an_nrrd_says_what_its_header_leaves_open(fields, axes, notice, tmp_path):
    data = labels_of((4, 3, 2))
    head = NRRD.format(len(axes), " ".join(map(str, axes)), fields)
    (tmp_path / "a.nrrd").write_bytes(head.encode() + data.tobytes(order="F"))
    volume = open_volume(tmp_path / "a.nrrd")
    assert volume.shape == (4, 3, 2)
    assert np.array_equal(volume.voxels(), data)
    assert volume.spacing_mm_xyz == ((1, 1, 1) if not fields else (2, 2, 3))
    assert notice in " ".join(header_notices(volume)) or not notice
    assert notice or not list(header_notices(volume))


def test_another_origin_of_metaimage_is_another_grid(tmp_path):
    for name, origin in (("a", (10, 20, 30)), ("b", (0, 0, 0))):
        image = SimpleITK.GetImageFromArray(labels_of((4, 3, 2)))
        image.SetOrigin(origin)
        SimpleITK.WriteImage(image, str(tmp_path / f"{name}.mha"))
    one, other = (open_volume(tmp_path / f"{name}.mha") for name in "ab")
    assert np.allclose(one.affine[:3, 3], (-10, -20, 30))
    found, _, _ = grid_difference((one.shape, one.affine), (other.shape, other.affine))
    assert "37.4 mm apart" in found


def turned(angle: float) -> np.ndarray:
    """A grid of 2 x 2 x 3 mm that is turned about its third axis (rad)."""
    return nib.affines.from_matvec(nib.eulerangles.euler2mat(angle, 0, 0) @ np.diag([2.0, 2, 3]))


@pytest.mark.parametrize(("angle", "words"), [(1e-6, None), (-1e-6, None), (0.1, "orientation"), (-0.1, "affine")])
def test_a_tiny_turn_at_45_degrees_is_the_same_grid(angle, words):
    reference, other = ((20, 20, 10), turned(np.pi / 4 - 1e-7)), ((20, 20, 10), turned(np.pi / 4 - 1e-7 + angle))
    difference = grid_difference(reference, other)
    assert difference is None if words is None else words in difference[0]


def test_a_header_without_orientation_beside_one_with_it_is_named_so(tmp_path):
    data = labels_of((4, 3, 2))
    save(tmp_path / "a.nii.gz", data, np.diag([-2.0, -2, 3, 1]))
    image = nib.Nifti1Image(data, None)
    image.header["pixdim"][1:4] = 2, 2, 3
    nib.save(image, tmp_path / "b.nii.gz")
    pair = Pair("a", tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", "a")
    request = Request((Structure("x", (1,), 1.0),), frozenset({0, 1, 2}), ("dice",))
    with pytest.raises(InputError, match="in one of the two files only"):
        score_case(pair, request)


@pytest.mark.parametrize("factor", [np.inf, 1e30])
def test_a_scale_factor_without_a_finite_result_is_refused(factor, tmp_path):
    save(tmp_path / "a.nii", labels_of((4, 3, 2)), np.eye(4))
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[112:116] = struct.pack("<f", factor)
    (tmp_path / "a.nii").write_bytes(raw)
    request = Request((Structure("x", (1,), 1.0),), frozenset({0, 1, 2}), ("dice",))
    with pytest.raises(InputError, match="scl_slope"):
        score_case(Pair("a", tmp_path / "a.nii", tmp_path / "a.nii", "a"), request)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.uint32, np.int64, np.uint64, np.float32, np.float64])
def test_labels_of_every_type_are_whole_numbers(dtype, tmp_path):
    nib.save(nib.Nifti1Image(labels_of((4, 3, 2)).astype(dtype), np.eye(4), dtype=dtype), tmp_path / "a.nii.gz")
    request = Request((Structure("x", (1,), 1.0),), frozenset({0, 1, 2}), ("dice",))
    (row,) = score_case(Pair("a", tmp_path / "a.nii.gz", tmp_path / "a.nii.gz", "a"), request).rows
    assert row["value"] == "1"


@pytest.mark.parametrize("kind", ["colours", "complex numbers", "two time points", "one slice without depth"])
def test_what_is_no_label_map_is_refused(kind, tmp_path):
    labels = labels_of((4, 3, 2))
    colours = np.zeros(labels.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    content = {
        "colours": colours,
        "complex numbers": labels.astype(np.complex64),
        "two time points": np.stack([labels, labels], axis=-1),
        "one slice without depth": labels[:, :, 0],
    }[kind]
    nib.save(nib.Nifti1Image(content, np.eye(4)), tmp_path / "a.nii.gz")
    request = Request((Structure("x", (1,), 1.0),), frozenset({0, 1, 2}), ("dice",))
    with pytest.raises(InputError, match=r"whole numbers|3 axes"):
        score_case(Pair("a", tmp_path / "a.nii.gz", tmp_path / "a.nii.gz", "a"), request)
