"""DICOM series and RTSTRUCT: volume, affine and mask against what was written, and the problems."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import generate_uid

from segbench.cli import main
from segbench.core import cards
from segbench.core.errors import InputError
from segbench.data import dicom
from segbench.data.ingest import ingest
from segbench.data.presence import presence
from tests.unit.data.dicom_files import oblique_affine, rectangle, write_series, write_structures

SHAPE = (14, 11, 6)
SPACING = (0.4, 0.7, 1.5)
CARD = cards.dataset_cards()["vs_seg"]


@pytest.fixture
def volume():
    return np.random.default_rng(3).integers(0, 900, size=SHAPE).astype(np.uint16)


def read(folder):
    (headers,) = dicom.headers_by_series(folder).values()
    return dicom.read_series(headers)


@pytest.mark.parametrize(
    "affine", [oblique_affine(SPACING), oblique_affine(SPACING, degrees=0), oblique_affine((1, 1, 3))]
)
def test_a_series_is_read_with_its_affine_whatever_the_file_names(affine, volume, tmp_path):
    paths = write_series(tmp_path, volume, affine, description="t1_mpr", uid=generate_uid())
    assert sorted(paths) == paths
    for new, path in zip(("c", "a", "f", "b", "e", "d"), paths, strict=True):
        path.rename(tmp_path / new)
    (tmp_path / "notes.txt").write_text("no DICOM")
    found, found_affine = read(tmp_path)
    np.testing.assert_array_equal(found, volume)
    np.testing.assert_allclose(found_affine, affine, atol=1e-6)


def moved_in_its_plane(item):
    item.ImagePositionPatient = [float(item.ImagePositionPatient[0]) + 3, *item.ImagePositionPatient[1:]]


def coloured(item):
    item.SamplesPerPixel, item.PhotometricInterpretation, item.PlanarConfiguration = 3, "RGB", 0
    item.PixelData = item.PixelData * 3


def of_two_frames(item):
    item.NumberOfFrames, item.PixelData = 2, item.PixelData * 2


def without_spacing(item):
    item.PixelSpacing = [0, 0]


@pytest.mark.parametrize(
    ("change", "every", "words"),
    [
        (moved_in_its_plane, False, "mm off the line"),
        (coloured, True, "one grey slice"),
        (of_two_frames, True, "one grey slice"),
        (without_spacing, True, "PixelSpacing"),
    ],
)
def test_slices_that_make_no_volume_are_problems(change, every, words, volume, tmp_path):
    paths = write_series(tmp_path, volume, oblique_affine(SPACING, degrees=0), description="t1", uid=generate_uid())
    for path in paths if every else paths[3:4]:
        item = pydicom.dcmread(path)
        change(item)
        item.save_as(path)
    with pytest.raises(InputError, match=words):
        read(tmp_path)


def test_the_affine_agrees_with_simpleitk(volume, tmp_path):
    write_series(tmp_path, volume, oblique_affine(SPACING), description="t1_mpr", uid=generate_uid())
    image = SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path)))
    direction = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    found, affine = read(tmp_path)
    np.testing.assert_array_equal(found, SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0))
    np.testing.assert_allclose(affine[:3, :3], np.diag([-1, -1, 1]) @ direction, atol=1e-5)
    np.testing.assert_allclose(affine[:3, 3], np.diag([-1, -1, 1]) @ image.GetOrigin(), atol=1e-6)


def test_stored_values_are_rescaled_where_the_file_says_so(volume, tmp_path):
    for path in write_series(tmp_path, volume, oblique_affine(SPACING), description="t1_mpr", uid=generate_uid()):
        item = pydicom.dcmread(path)
        item.RescaleSlope, item.RescaleIntercept = "0.5", "-10"
        item.save_as(path)
    np.testing.assert_array_equal(read(tmp_path)[0], (volume * 0.5 - 10).astype(np.float32))


def test_two_series_in_one_folder_are_kept_apart(volume, tmp_path):
    first, second = generate_uid(), generate_uid()
    write_series(tmp_path, volume, oblique_affine(SPACING), description="t1_mpr", uid=first)
    for path in tmp_path.iterdir():
        path.rename(path.with_name(f"first-{path.name}"))
    write_series(tmp_path, volume[:8] + 1, oblique_affine((1, 1, 2)), description="t2_ci3d", uid=second)
    series = dicom.headers_by_series(tmp_path)
    np.testing.assert_array_equal(dicom.read_series(series[first])[0], volume)
    np.testing.assert_array_equal(dicom.read_series(series[second])[0], volume[:8] + 1)


def test_missing_double_and_foreign_slices_are_problems(volume, tmp_path):
    paths = write_series(tmp_path, volume, oblique_affine(SPACING), description="t1_mpr", uid=generate_uid())
    (headers,) = dicom.headers_by_series(tmp_path).values()
    with pytest.raises(InputError, match=r"5 slices with gaps of 1\.5 and 3 mm"):
        dicom.read_series([*headers[:3], *headers[4:]])
    with pytest.raises(InputError, match=r"7 slices with gaps of 1\.5 and 0 mm"):
        dicom.read_series([*headers, headers[2]])
    with pytest.raises(InputError, match="one slice"):
        dicom.read_series(headers[:1])
    item = pydicom.dcmread(paths[2])
    item.PixelSpacing = ["0.7", "0.41"]
    item.save_as(paths[2])
    with pytest.raises(InputError, match="unlike orientation, spacing or shape"):
        read(tmp_path)


@pytest.fixture
def structures(tmp_path):
    """Write contours on an oblique grid and read their mask back."""

    def mask(*contours, shape=SHAPE):
        affine = oblique_affine(SPACING)
        write_structures(tmp_path / "rt.dcm", {"TV": list(contours)}, affine, series="1.2.3")
        found = dicom.contours_of(pydicom.dcmread(tmp_path / "rt.dcm"), "TV")
        return dicom.mask_of(found, shape_xyz=shape, affine=affine, where=tmp_path / "rt.dcm")

    return mask


def test_a_contour_with_a_hole_and_two_contours_on_a_slice_give_the_drawn_mask(structures):
    """Edges lie between voxel centres, so that the mask is known voxel by voxel."""
    outer, hole = rectangle((1.5, 8.5), (2.5, 7.5), 3), rectangle((3.5, 5.5), (3.5, 5.5), 3)
    beside, below = rectangle((9.5, 12.5), (0.5, 3.5), 3), rectangle((0.5, 1.5), (0.5, 1.5), 0)
    expected = np.zeros(SHAPE, dtype=np.uint8)
    expected[2:9, 3:8, 3] = 1
    expected[4:6, 4:6, 3] = 0
    expected[10:13, 1:4, 3] = 1
    expected[1, 1, 0] = 1
    np.testing.assert_array_equal(structures(outer, hole, beside, below), expected)


def test_a_hole_drawn_as_a_keyhole_is_a_hole(structures):
    """One contour runs in through a channel of no width, around the hole, and out again (PS3.3 C.8.8.6.3)."""
    outer, hole = rectangle((1.5, 8.5), (2.5, 7.5), 3), rectangle((3.5, 5.5), (3.5, 5.5), 3)[[0, 3, 2, 1, 0]]
    expected = np.zeros(SHAPE, dtype=np.uint8)
    expected[2:9, 3:8, 3] = 1
    expected[4:6, 4:6, 3] = 0
    np.testing.assert_array_equal(structures(np.vstack([outer, outer[:1], hole, outer[:1]])), expected)


def rewritten(path, change):
    """Change a structure set in place and return it as read back."""
    item = pydicom.dcmread(path)
    change(item)
    item.save_as(path)
    return pydicom.dcmread(path)


def geometric_type(kind):
    """Set the type of the first contour."""

    def change(item):
        item.ROIContourSequence[0].ContourSequence[0].ContourGeometricType = kind

    return change


@pytest.mark.filterwarnings("ignore:The value length")  # 16 letters are allowed, programs write 19
@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "INTERPOLATED_PLANAR"])
def test_every_closed_contour_is_drawn(structures, kind, tmp_path):
    drawn = structures(rectangle((1.5, 8.5), (2.5, 7.5), 3), rectangle((1.5, 4.5), (2.5, 4.5), 2))
    read_back = rewritten(tmp_path / "rt.dcm", geometric_type(kind))
    found = dicom.contours_of(read_back, "TV")
    mask = dicom.mask_of(found, shape_xyz=SHAPE, affine=oblique_affine(SPACING), where=tmp_path)
    np.testing.assert_array_equal(mask, drawn)


@pytest.mark.parametrize("kind", ["POINT", "OPEN_PLANAR", "OPEN_NONPLANAR"])
def test_an_item_without_area_is_refused_in_the_chosen_structure_only(structures, kind, tmp_path):
    structures(rectangle((1.5, 8.5), (2.5, 7.5), 3))
    read_back = rewritten(tmp_path / "rt.dcm", geometric_type(kind))
    assert dicom.structure_names(read_back) == ["TV"]
    assert dicom.contours_of(read_back, "other") == []
    with pytest.raises(InputError, match=f"an item of type {kind}"):
        dicom.contours_of(read_back, "TV")


def test_a_contour_that_is_stored_twice_is_no_hole_and_overlapping_ones_add_up(structures):
    first, second = rectangle((1.5, 6.5), (2.5, 7.5), 3), rectangle((4.5, 8.5), (2.5, 7.5), 3)
    expected = np.zeros(SHAPE, dtype=np.uint8)
    expected[2:7, 3:8, 3] = 1
    np.testing.assert_array_equal(structures(first, first), expected)
    np.testing.assert_array_equal(structures(first, np.roll(first[::-1], 1, axis=0)), expected)
    expected[2:9, 3:8, 3] = 1
    np.testing.assert_array_equal(structures(first, second), expected)


def drawn_as(kind, structures, tmp_path, *contours):
    """Draw contours of one geometric type."""
    structures(*contours)

    def change(item):
        for contour in item.ROIContourSequence[0].ContourSequence:
            contour.ContourGeometricType = kind

    found = dicom.contours_of(rewritten(tmp_path / "rt.dcm", change), "TV")
    return dicom.mask_of(found, shape_xyz=SHAPE, affine=oblique_affine(SPACING), where=tmp_path)


LEFT, RIGHT = rectangle((1.5, 6.5), (2.5, 7.5), 3), rectangle((4.5, 8.5), (2.5, 7.5), 3)
OUTER, HOLE, ISLAND = (rectangle((k + 0.5, 11.5 - k), (k + 0.5, 9.5 - k), 3) for k in (0, 2, 3))


def areas(*slices):
    """Return the exclusive or of blocks on slice 3."""
    found = np.zeros(SHAPE, dtype=np.uint8)
    for x, y in slices:
        found[x, y, 3] ^= 1
    return found


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
@pytest.mark.filterwarnings("ignore:The value length")
@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "INTERPOLATED_PLANAR"])
def test_an_island_in_a_hole_is_drawn_in_any_order(kind, order, structures, tmp_path):
    contours = [(OUTER, HOLE, ISLAND)[number] for number in order]
    expected = areas((slice(1, 12), slice(1, 10)), (slice(3, 10), slice(3, 8)), (slice(4, 9), slice(4, 7)))
    np.testing.assert_array_equal(drawn_as(kind, structures, tmp_path, *contours), expected)


def test_contours_of_the_type_xor_are_combined_so_even_where_they_overlap(structures, tmp_path):
    both = (slice(2, 7), slice(3, 8)), (slice(5, 9), slice(3, 8))
    found = drawn_as("CLOSEDPLANAR_XOR", structures, tmp_path, LEFT, RIGHT)
    np.testing.assert_array_equal(found, areas(*both))
    added = drawn_as("CLOSED_PLANAR", structures, tmp_path, LEFT, RIGHT)
    np.testing.assert_array_equal(added, areas((slice(2, 9), slice(3, 8))))


def test_a_structure_that_the_image_does_not_resolve_is_refused(structures):
    small = rectangle((1.1, 1.4), (1.1, 1.4), 3)
    with pytest.raises(InputError, match=r"1 contour\(s\) without the centre of a voxel"):
        structures(small)
    assert structures(small, LEFT).sum() == 25


def test_a_contour_may_end_where_it_began_and_points_may_lie_on_a_line(structures):
    closed = np.vstack([LEFT, LEFT[:1]])
    halves = np.vstack([LEFT[:1], (LEFT[:1] + LEFT[1:2]) / 2, LEFT[1:]])
    expected = areas((slice(2, 7), slice(3, 8)))
    np.testing.assert_array_equal(structures(closed), expected)
    np.testing.assert_array_equal(structures(halves), expected)


def test_two_structures_of_one_name_are_refused(tmp_path):
    drawn = {name: [rectangle((1.5, 3.5), (1.5, 3.5), 1)] for name in ("TV", "tumour")}
    write_structures(tmp_path / "rt.dcm", drawn, oblique_affine(SPACING), series="1.2.3")

    def change(item):
        item.StructureSetROISequence[1].ROIName = "TV "

    with pytest.raises(InputError, match=r"2 of them \(TV, TV\s*\); expected one structure of that name"):
        dicom.contours_of(rewritten(tmp_path / "rt.dcm", change), "TV")


def test_a_missing_element_is_named_without_words_of_python(volume, tmp_path, capsys):
    write_patient(tmp_path, 1, volume)
    for path in tmp_path.rglob("t1_mpr_tra-0/*.dcm"):
        item = pydicom.dcmread(path)
        del item.PixelSpacing
        item.save_as(path)
    assert main(["convert", "vs_seg", "--source", str(tmp_path), "--data-root", str(tmp_path / "data")]) == 2
    error = capsys.readouterr().err
    assert "a header without the element PixelSpacing" in error
    assert "object" not in error


def test_a_circle_gives_the_voxels_whose_centres_it_holds(structures):
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    circle = np.column_stack([6 + 4.3 * np.cos(angles), 5 + 4.3 * np.sin(angles), np.full(720, 2.0)])
    x, y = np.meshgrid(np.arange(SHAPE[0]), np.arange(SHAPE[1]), indexing="ij")
    expected = np.zeros(SHAPE, dtype=np.uint8)
    expected[:, :, 2] = (x - 6) ** 2 + (y - 5) ** 2 < 4.3**2
    np.testing.assert_array_equal(structures(circle), expected)


def test_a_contour_between_or_beyond_the_slices_is_a_problem_and_none_is_an_empty_mask(structures):
    assert structures(rectangle((1.5, 3.5), (1.5, 3.5), 2.2)).sum() == 4, "near a slice is on it"
    for level in (2.5, -1, 6):
        with pytest.raises(InputError, match="a contour at slice"):
            structures(rectangle((1.5, 3.5), (1.5, 3.5), level))
    assert not structures().any()


def write_patient(root, number: int, volume, **structures) -> None:
    """Write VS-SEG-NNN as published: study/series folders of T1 and T2, each with an RTSTRUCT drawn on it."""
    study = root / "manifest-1" / "Vestibular-Schwannoma-SEG" / f"VS-SEG-{number:03d}" / "12-03-1993-NA-MRI"
    drawn = structures or {
        "Cochlea": [rectangle((0.5, 2.5), (0.5, 2.5), 1)],
        "TV": [rectangle((3.5, 6.5), (2.5, 4.5), 2)],
    }
    for kind, affine, data in (
        ("t1_mpr_tra", oblique_affine(SPACING), volume),
        ("t2_ci3d", oblique_affine((1, 1, 2)), volume),
    ):
        uid = generate_uid()
        write_series(study / f"{kind}-0", data, affine, description=kind, uid=uid)
        write_structures(study / f"NA-{kind}" / "1-1.dcm", drawn, affine, series=uid)


def test_the_published_dicom_tree_becomes_cases_of_the_card(volume, tmp_path, capsys):
    for number in (1, 2, 40):
        write_patient(tmp_path, number, volume + number)
    data_root = tmp_path / "data"
    command = ["convert", "vs_seg", "--source", str(tmp_path), "--data-root", str(data_root)]
    assert main(command) == 0
    assert "3 case(s) written" in capsys.readouterr().out
    assert presence("vs_seg", CARD, data_root) == "partial (3 of 242 cases)"
    task = cards.task_from_card("vs_seg", CARD)
    cases = ingest(task, CARD, data_root)
    assert [case.case_id for case in cases] == ["vs_gk_1", "vs_gk_2", "vs_gk_40"]
    image, label = nib.load(cases[0].image_paths[0]), nib.load(cases[0].label_path)
    np.testing.assert_array_equal(np.asarray(image.dataobj), volume + 1)
    np.testing.assert_allclose(image.affine, oblique_affine(SPACING), atol=1e-5)
    np.testing.assert_array_equal(image.affine, label.affine)
    expected = np.zeros(SHAPE)
    expected[4:7, 3:5, 2] = 1
    np.testing.assert_array_equal(label.get_fdata(), expected)
    assert sorted(path.name for path in (data_root / CARD["folder"]).iterdir()) == ["vs_gk_1", "vs_gk_2", "vs_gk_40"]


def test_a_run_goes_on_where_it_broke_and_names_every_bad_patient(volume, tmp_path, capsys):
    for number in range(1, 5):
        write_patient(tmp_path, number, volume)
    write_patient(tmp_path, 5, volume, Skull=[rectangle((3.5, 6.5), (2.5, 4.5), 2)])
    tree = tmp_path / "manifest-1" / "Vestibular-Schwannoma-SEG"
    next((tree / "VS-SEG-002").rglob("t1_mpr_tra-0/1-014.dcm")).unlink()
    next((tree / "VS-SEG-003").rglob("NA-t1_mpr_tra/*.dcm")).unlink()
    broken = next((tree / "VS-SEG-004").rglob("t1_mpr_tra-0/1-007.dcm"))
    broken.write_bytes(broken.read_bytes()[:-50])
    command = ["convert", "vs_seg", "--source", str(tmp_path), "--data-root", str(tmp_path / "data")]
    for _ in range(2):
        assert main(command) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "; expected" in line]
        assert len(lines) == 4
        assert "5 slices with gaps of 1.5 and 3 mm" in lines[0]
        assert "found 0 x RTSTRUCT of it" in lines[1]
        assert "VS-SEG-004" in lines[2]
        assert "structures Skull" in lines[3]
        written = tmp_path / "data" / CARD["folder"] / "vs_gk_1"
        assert [path.name for path in written.parent.iterdir()] == ["vs_gk_1"]
        changed = (written / "vs_gk_seg_refT1.nii.gz").stat().st_mtime_ns
    assert (written / "vs_gk_seg_refT1.nii.gz").stat().st_mtime_ns == changed
    (written / "vs_gk_seg_refT1.nii.gz").unlink()
    assert main(command) == 2
    assert "a case without image or label" in capsys.readouterr().err


@pytest.mark.parametrize("names", [("Vol2y", "TV"), ("Skull", " an "), ("Cochlea", "Vol2016"), ("Tumour", "TV")])
def test_the_tumour_is_found_under_the_names_in_use(names, volume, tmp_path):
    """A plain name wins over a dated one; of two plain names the first is taken."""
    tumour = names[0] if names[0] == "Tumour" else names[1]
    places = {tumour: rectangle((3.5, 6.5), (2.5, 4.5), 2)}
    drawn = {name: [places.get(name, rectangle((0.5, 1.5), (0.5, 1.5), 1))] for name in names}
    write_patient(tmp_path, 7, volume, **drawn)
    assert main(["convert", "vs_seg", "--source", str(tmp_path), "--data-root", str(tmp_path / "data")]) == 0
    label = nib.load(tmp_path / "data" / CARD["folder"] / "vs_gk_7" / "vs_gk_seg_refT1.nii.gz").get_fdata()
    assert label.sum() == 6
    assert label[4, 3, 2] == 1


def test_only_a_data_set_that_needs_it_is_converted_and_only_from_its_tree(tmp_path, capsys):
    assert main(["convert", "lits", "--source", str(tmp_path), "--data-root", str(tmp_path)]) == 2
    assert "known: vs_seg" in capsys.readouterr().err
    assert main(["convert", "vs_seg", "--source", str(tmp_path), "--data-root", str(tmp_path)]) == 2
    assert "no VS-SEG-NNN folder" in capsys.readouterr().err


def chosen(tmp_path, change, *, drawn=None):
    """Write structures, change them and return the contours of TV."""
    drawn = drawn or {"TV": [LEFT], "Cochlea": [RIGHT]}
    write_structures(tmp_path / "rt.dcm", drawn, oblique_affine(SPACING), series="1.2.3")
    return dicom.contours_of(rewritten(tmp_path / "rt.dcm", change), "TV")


def test_names_that_differ_in_letter_case_are_one_name(tmp_path):
    with pytest.raises(InputError, match=r"2 of them \(TV, tv\)"):
        chosen(tmp_path, lambda item: None, drawn={"TV": [LEFT], "tv": [RIGHT]})


def test_two_structures_with_one_number_are_refused(tmp_path):
    def change(item):
        item.StructureSetROISequence[1].ROINumber = 1

    with pytest.raises(InputError, match=r"structures TV and Cochlea with one number \(1\)"):
        chosen(tmp_path, change)


@pytest.mark.parametrize(
    ("data", "words"), [(None, "without points"), ("empty", "without points"), (["1", "2"] * 5, "with 10 numbers")]
)
def test_points_that_are_missing_are_named_in_plain_words(data, words, tmp_path):
    def change(item):
        contour = item.ROIContourSequence[0].ContourSequence[0]
        if data is None:
            del contour.ContourData
        else:
            contour.ContourData = None if data == "empty" else data

    with pytest.raises(InputError, match=words) as error:
        chosen(tmp_path, change)
    assert "structure TV" in str(error.value)


def test_a_contour_that_draws_nothing_is_said_with_its_slice(structures, caplog):
    structures(rectangle((1.1, 1.4), (1.1, 1.4), 2), LEFT)
    assert "slice 2" in caplog.text
    caplog.clear()
    structures(LEFT, RIGHT)
    assert not caplog.text


def test_links_to_folders_are_followed(volume, tmp_path):
    write_series(tmp_path / "store", volume, oblique_affine(SPACING), description="t1_mpr", uid=generate_uid())
    (tmp_path / "patient").mkdir()
    (tmp_path / "patient" / "series").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "circle").symlink_to(tmp_path / "store")
    np.testing.assert_array_equal(read(tmp_path / "patient")[0], volume)


@pytest.mark.parametrize("other", ["manifest-2/VS-SEG-001", "manifest-1/Vestibular-Schwannoma-SEG/VS-SEG-1"])
def test_a_patient_with_two_folders_is_a_problem(other, volume, tmp_path, capsys):
    for number in (1, 2):
        write_patient(tmp_path, number, volume)
    (tmp_path / other).mkdir(parents=True)
    assert main(["convert", "vs_seg", "--source", str(tmp_path), "--data-root", str(tmp_path / "data")]) == 2
    assert "found the same patient as" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "data" / CARD["folder"]).iterdir()] == ["vs_gk_2"]
