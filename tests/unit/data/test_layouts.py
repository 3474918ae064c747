"""Listings as the field writes them: nnU-Net v1 and v2, Decathlon, MONAI."""

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from segbench.cli import main
from segbench.core.cards import DatasetCard, checked, task_from_card
from segbench.core.case import CaseFiles
from segbench.core.errors import InputError
from segbench.core.task import IGNORED
from segbench.data.checks import _name_problems, check_folder
from segbench.data.ingest import ingest
from segbench.data.layouts import dataset_json, find, folder_cases, table
from segbench.data.readers import read_label

SHAPE = (8, 7, 6)
V2 = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}


def image_of(number):
    return np.random.default_rng(number).normal(0, 300, SHAPE).astype(np.float32)


def save(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2, 3, 1])), path)


def organ():
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:5, 2:5, 2:5] = 1
    return labels


def found(folder):
    return folder_cases(folder, dataset_json(folder), patient_of=lambda case: case)


def two_channels(folder, content, cases=("a", "b")):
    for number, case in enumerate(cases):
        for channel in range(2):
            data = image_of(10 * number + channel)
            save(folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz", np.abs(data) if channel else data)
        save(folder / "labelsTr" / f"{case}.nii.gz", organ())
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_nnunet_v2_with_a_training_list_that_was_left_over(tmp_path):
    stale = {"training": [{"image": "imagesTr/gone.nii.gz", "label": "labelsTr/gone.nii.gz"}], "numTraining": 2}
    folder = two_channels(tmp_path / "D", V2 | stale)
    assert [case.case_id for case in found(folder)] == ["a", "b"]
    assert not check_folder(folder).problems


def test_nnunet_v1_lists_images_without_their_channels(tmp_path):
    listed = [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in "ab"]
    content = {"modality": V2["channel_names"], "labels": {"0": "bg", "1": "organ"}, "training": listed}
    folder = two_channels(tmp_path / "D", content)
    assert [path.name for path in found(folder)[1].image_paths] == ["b_0000.nii.gz", "b_0001.nii.gz"]
    assert not check_folder(folder).problems


def test_the_key_dataset_of_nnunet_v2_names_the_files(tmp_path):
    folder = two_channels(tmp_path / "D", {})
    images = [f"imagesTr/a_{channel:04d}.nii.gz" for channel in range(2)]
    content = V2 | {"dataset": {"case_x": {"images": images, "label": "labelsTr/a.nii.gz"}}}
    (folder / "dataset.json").write_text(json.dumps(content))
    assert [(case.case_id, len(case.image_paths)) for case in found(folder)] == [("case_x", 2)]
    content["dataset"]["case_x"].pop("label")
    (folder / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"dataset\['case_x'\]"):
        found(folder)


def test_a_monai_datalist_lists_channels_and_is_named_when_it_lacks_labels(tmp_path, capsys):
    images = [[f"imagesTr/{case}_{channel:04d}.nii.gz" for channel in range(2)] for case in "ab"]
    listed = [
        {"fold": 0, "image": names, "label": f"labelsTr/{case}.nii.gz"}
        for case, names in zip("ab", images, strict=True)
    ]
    folder = two_channels(tmp_path / "D", {"training": listed})
    assert main(["check", "--data", str(folder)]) == 2
    assert "a MONAI datalist, which names no labels" in capsys.readouterr().err
    labels = {"labels": {"0": "bg", "1": "organ"}, "modality": V2["channel_names"]}
    (folder / "dataset.json").write_text(json.dumps({"training": listed} | labels))
    assert [case.case_id for case in found(folder)] == ["a", "b"]
    assert not check_folder(folder).problems


def test_the_ignore_label_of_nnunet_is_said_and_no_class(tmp_path):
    content = V2 | {"labels": {"background": 0, "organ": 1, "ignore": 2}}
    folder = two_channels(tmp_path / "D", content)
    partly = organ()
    partly[:, :, 5] = 2
    save(folder / "labelsTr" / "b.nii.gz", partly)
    checked_folder = check_folder(folder)
    assert not checked_folder.problems
    assert "labels [0, 1]" in checked_folder.summary
    assert any("ignored voxels (label 2) in 1 of 2 cases" in notice for notice in checked_folder.notices)


def test_the_ignored_values_of_a_card_have_one_value_when_they_are_read(tmp_path):
    card = checked(
        {
            "title": "T",
            "layout": "nnunet_raw",
            "folder": "D",
            "channels": [{"name": "CT", "modality": "CT"}, {"name": "PET", "modality": "PET"}],
            "classes": {"1": "organ"},
            "ignore_labels": [7],
            "structures": [{"name": "organ", "labels": [1], "tolerance_mm": 2}],
            "preprocessing": "default",
            "patient_namespace": "d",
            "licence": "x",
            "permits": {"commercial": True, "show_images": True},
            "citation": "x",
            "url": "x",
            "obtain": "x",
        },
        DatasetCard,
        "card",
    )
    folder = two_channels(tmp_path / "D", V2)
    partly = organ()
    partly[:, :, 5] = 7
    save(folder / "labelsTr" / "b.nii.gz", partly)
    case = ingest(task_from_card("d", card), card, tmp_path)[1]
    labels = read_label(case, card)
    assert set(np.unique(labels)) == {0, 1, IGNORED}
    with pytest.raises(InputError, match="ignore_labels 1"):
        task_from_card("d", card | {"ignore_labels": [1]})


def test_sizes_that_disagree_are_both_shown_and_neither_is_called_true(tmp_path):
    folder = two_channels(tmp_path / "D", V2)
    path = folder / "labelsTr" / "a.nii.gz"
    for path in folder.rglob("a*.nii.gz"):
        image = nib.load(path)
        image.set_sform(np.diag([2.0, 2, 6, 1]), code=1)
        image.header["pixdim"][1:4] = 2, 2, 3
        nib.save(image, path)
    notices = " ".join(check_folder(folder).notices)
    assert "2x2x3 and 2x2x6 mm" in notices
    assert "spacing_is_nominal" in notices
    assert "true" not in notices


def rewrite(folder, change):
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(change(content)))


def decathlon(folder):
    """Write a Decathlon folder of two cases."""
    listed = [{"image": f"imagesTr/{case}.nii.gz", "label": f"labelsTr/{case}.nii.gz"} for case in "ab"]
    for number, case in enumerate("ab"):
        save(folder / "imagesTr" / f"{case}.nii.gz", image_of(number))
        save(folder / "labelsTr" / f"{case}.nii.gz", organ())
    content = {"modality": {"0": "CT"}, "labels": {"0": "bg", "1": "organ"}, "training": listed}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda item, _: {**item, "fold": 0},
        lambda item, _: {**item, "image": [item["image"]]},
        lambda item, _: {key: f"./{path}" for key, path in item.items()},
        lambda item, _: {key: f"imagesTr/../{path}" for key, path in item.items()},
        lambda item, folder: {key: str(folder / path) for key, path in item.items()},
    ],
    ids=["fold", "list of one", "dot", "inner dots", "from the root, inside the folder"],
)
def test_a_listing_names_its_files_as_people_write_them(change, tmp_path):
    folder = decathlon(tmp_path / "M")
    rewrite(folder, lambda content: content | {"training": [change(item, folder) for item in content["training"]]})
    assert not check_folder(folder).problems
    assert [case.case_id for case in found(folder)] == ["a", "b"]


@pytest.mark.parametrize("name", ["../other/a.nii.gz", "/etc/hosts", "imagesTr/../../other/a.nii.gz"])
def test_a_listing_does_not_leave_its_folder(name, tmp_path):
    folder = decathlon(tmp_path / "M")
    rewrite(folder, lambda content: content | {"training": [{"image": name, "label": "labelsTr/a.nii.gz"}]})
    with pytest.raises(InputError, match="outside the folder"):
        found(folder)


@pytest.mark.parametrize("ignored", [255, -1, 65535, 2])
def test_the_ignore_label_of_nnunet_is_no_class_and_is_said(ignored, tmp_path):
    folder = two_channels(tmp_path / "D", V2 | {"labels": {"background": 0, "organ": 1, "ignore": ignored}})
    for path in (folder / "labelsTr").iterdir():
        labels = organ().astype(np.int32)
        labels[7:] = ignored
        save(path, labels)
    checked_folder = check_folder(folder)
    assert not checked_folder.problems
    assert any(f"ignored voxels (label {ignored}) in 2 of 2 cases" in notice for notice in checked_folder.notices)


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii", ".nii.gz"])
def test_a_raw_folder_of_nnunet_in_every_format_that_is_read(ending, tmp_path):
    folder = tmp_path / "D"
    for case in "ab":
        for place, data in (("imagesTr", image_of(ord(case))), ("labelsTr", organ())):
            (folder / place).mkdir(parents=True, exist_ok=True)
            name = f"{case}_0000{ending}" if place == "imagesTr" else f"{case}{ending}"
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(data.T.copy()), str(folder / place / name))
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "file_ending": ending}
    (folder / "dataset.json").write_text(json.dumps(content))
    assert not check_folder(folder).problems


@pytest.mark.parametrize("ending", [".png", ".tif", ".mhd", "nii.gz"])
def test_another_ending_is_refused_with_those_that_are_read(ending, tmp_path):
    folder = two_channels(tmp_path / "D", V2 | {"file_ending": ending})
    (problem,) = check_folder(folder).problems
    assert ".nii.gz" in problem.expected
    assert ".nrrd" in problem.expected


@pytest.mark.parametrize("kind", ["files", "folders", "the list", "the whole folder"])
def test_links_are_followed(kind, tmp_path):
    store, folder = decathlon(tmp_path / "store"), tmp_path / "M"
    if kind == "the whole folder":
        folder.symlink_to(store)
    else:
        folder.mkdir()
        (folder / "dataset.json").symlink_to(store / "dataset.json")
        for place in ("imagesTr", "labelsTr"):
            if kind == "folders":
                (folder / place).symlink_to(store / place)
                continue
            (folder / place).mkdir()
            for path in (store / place).iterdir():
                (folder / place / path.name).symlink_to(path)
    assert not check_folder(folder).problems


def test_a_link_to_nothing_and_links_in_a_circle_are_problems(tmp_path):
    folder = decathlon(tmp_path / "M")
    image = folder / "imagesTr" / "a.nii.gz"
    image.unlink()
    image.symlink_to(tmp_path / "nowhere")
    assert [problem.found for problem in check_folder(folder).problems] == ["a link to nothing"]
    image.unlink()
    image.symlink_to(image)
    assert len(check_folder(folder).problems) == 1


def test_one_case_under_two_spellings_is_a_problem(tmp_path):
    folder = decathlon(tmp_path / "M")
    for place in ("imagesTr", "labelsTr"):
        (folder / place / "a.nii.gz").rename(folder / place / "Case-01.nii.gz")
        (folder / place / "b.nii.gz").rename(folder / place / "case_1.nii.gz")
    names = ["Case-01", "case_1"]
    listed = [{"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"} for name in names]
    rewrite(folder, lambda content: content | {"training": listed})
    assert [problem.found for problem in check_folder(folder).problems] == ["case ids Case-01 and case_1"]


ORGANS = {"1": "liver", "2": "kidney", "3": "spleen"}


def partly_annotated(folder, entries):
    content = {"modality": {"0": "CT"}, "labels": {"0": "bg"} | ORGANS, "training": []}
    for name, annotated in entries.items():
        save(folder / "imagesTr" / f"{name}.nii.gz", image_of(len(name)))
        save(folder / "labelsTr" / f"{name}.nii.gz", organ())
        stated = {} if annotated is None else {"annotated": annotated}
        entry = {"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"}
        content["training"].append(entry | stated)
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder_cases(folder, content, patient_of=lambda case: case, classes=ORGANS)


def test_an_entry_names_the_classes_that_were_looked_for(tmp_path):
    entries = {"a": ["spleen", "liver"], "bb": None, "ccc": ["liver", "kidney", "spleen"]}
    assert [case.annotated for case in partly_annotated(tmp_path, entries)] == [(1, 3), None, None]
    checked_folder = check_folder(tmp_path)
    assert not checked_folder.problems
    assert any("kidney is annotated in 2 of 3 cases" in notice for notice in checked_folder.notices)


@pytest.mark.parametrize("wrong", [[], "liver", ["lung"], [1]])
def test_annotated_holds_names_of_classes(tmp_path, wrong):
    with pytest.raises(InputError, match=r"training\[0\].*annotated"):
        partly_annotated(tmp_path, {"a": wrong})


def test_voxels_of_a_class_that_nobody_looked_for_are_a_contradiction(tmp_path):
    partly_annotated(tmp_path, {"a": ["kidney"]})
    assert ["voxels of [1]" in problem.found for problem in check_folder(tmp_path).problems] == [True]


def test_a_table_names_the_classes_that_were_looked_for(tmp_path):
    partly_annotated(tmp_path, {"a": None, "bb": None})
    lines = ["case,patient,label,CT,annotated"]
    lines += [f"{name},{name},labelsTr/{name}.nii.gz,imagesTr/{name}.nii.gz,{cell}" for name, cell in CELLS.items()]
    (tmp_path / "cases.csv").write_text("\n".join(lines))
    card = {"channels": [{"name": "CT"}], "classes": ORGANS, "obtain": ""}
    assert [case.annotated for case in table(tmp_path, card)] == [(1, 2), None]


CELLS = {"a": "liver|kidney", "bb": ""}


@pytest.mark.parametrize("content", [V2, V2 | {"channel_names": {"0": "CT"}}], ids=["two named", "one named"])
def test_a_channel_that_nobody_named_is_a_problem(content, tmp_path):
    folder = two_channels(tmp_path / "D", content)
    save(folder / "imagesTr" / "a_0002.nii.gz", image_of(5))
    with pytest.raises(InputError) as error:
        found(folder)
    assert "of a; expected" in str(error.value)
    assert len(error.value.problems) == 3 - len(content["channel_names"])


def test_a_channel_that_nobody_named_is_a_problem_of_nnunet_v1(tmp_path):
    listed = [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in "ab"]
    content = {"modality": {"0": "CT"}, "labels": {"0": "bg", "1": "organ"}, "training": listed}
    with pytest.raises(InputError, match=r"a file of channel 1 of a; expected 1 channel"):
        found(two_channels(tmp_path / "D", content))


def test_a_case_that_ends_in_digits_has_no_further_channels(tmp_path):
    folder = two_channels(tmp_path / "D", V2, cases=("la_0003", "la_0004"))
    assert [case.case_id for case in found(folder)] == ["la_0003", "la_0004"]


def test_an_image_without_a_label_is_said(tmp_path):
    folder = two_channels(tmp_path / "D", V2, cases=("a", "b", "c"))
    (folder / "labelsTr" / "c.nii.gz").unlink()
    notices = " ".join(check_folder(folder).notices)
    assert "2 image(s) in imagesTr without a label, which nothing uses: c_0000.nii.gz, c_0001.nii.gz" in notices
    assert "without a label" not in " ".join(check_folder(two_channels(tmp_path / "E", V2)).notices)


def test_suffixes_count_in_any_letter_case(tmp_path):
    folder = two_channels(tmp_path / "D", V2)
    for path in list(folder.rglob("*.nii.gz")):
        path.rename(path.with_name(path.name.replace(".nii.gz", ".NII.GZ")))
    for ending in (".nii.gz", ".NII.GZ"):
        rewrite(folder, lambda content, ending=ending: content | {"file_ending": ending})
        assert not check_folder(folder).problems
        assert [case.case_id for case in found(folder)] == ["a", "b"]


@pytest.mark.parametrize(
    "change", [lambda path: path.replace("/", "\\"), lambda path: [path]], ids=["Windows", "MONAI"]
)
def test_paths_of_windows_and_labels_in_a_list_are_read(change, tmp_path):
    folder = decathlon(tmp_path / "M")
    listed = [{key: change(path) for key, path in item.items()} for item in dataset_json(folder)["training"]]
    rewrite(folder, lambda content: content | {"training": listed})
    assert not check_folder(folder).problems


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["bg", "organ"], "`labels` ['bg', 'organ']; expected a mapping"),
        ({"1": "organ"}, "label values [1]; expected the value 0"),
        ({"background": 0, "organ": 1, "tumour": 1}, "label value 1 for organ and tumour"),
        ({"0": "bg", "1": "organ", "01": "tumour"}, "label value 1 for organ and tumour"),
    ],
)
def test_labels_that_cannot_be_meant_are_one_problem(labels, words, tmp_path):
    folder = decathlon(tmp_path / "M")
    rewrite(folder, lambda content: content | {"labels": labels})
    (problem,) = check_folder(folder).problems
    assert words in problem.line()


def test_regions_may_share_values(tmp_path):
    folder = decathlon(tmp_path / "M")
    rewrite(folder, lambda content: content | {"labels": {"background": 0, "whole": [1, 2], "core": 2}})
    assert not check_folder(folder).problems


TABLE_CARD = {"channels": [{"name": "CT"}], "classes": {"1": "organ"}, "obtain": ""}


def test_blanks_around_cells_of_a_table_count_nowhere(tmp_path):
    (tmp_path / "cases.csv").write_text('case, patient ,CT,label,\na,"P1 ", i.nii.gz,l.nii.gz,\n')
    (case,) = table(tmp_path, TABLE_CARD)
    assert (case.case_id, case.patient_id, case.image_paths[0].name) == ("a", "P1", "i.nii.gz")


def test_a_column_twice_is_refused(tmp_path):
    (tmp_path / "cases.csv").write_text("case,patient,CT,label, label\na,p,i.nii.gz,l.nii.gz,other.nii.gz\n")
    with pytest.raises(InputError, match="the column label twice"):
        table(tmp_path, TABLE_CARD)


def test_spellings_of_one_patient_are_a_problem(tmp_path):
    paths = (tmp_path / "i.nii.gz",), tmp_path / "l.nii.gz"
    cases = [CaseFiles(name, patient, *paths) for name, patient in (("a", "P1"), ("b", "p01"), ("c", "P2"))]
    problems = [problem.found for problem in _name_problems(cases, "mine")]
    assert "patient ids P1 and p01" in problems
    same = [CaseFiles(name, name, *paths) for name in ("x1", "X1")]
    assert sum("ids X1 and x1" in problem.found for problem in _name_problems(same, "mine")) == 1


def test_linked_folders_are_searched_and_hidden_ones_are_not(tmp_path):
    for name in ("store/b/x_seg.nii.gz", "data/a/inner/x_seg.nii.gz", "data/a/.old/x_seg.nii.gz", "data/._x_seg.nii"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "data" / "b").symlink_to(tmp_path / "store" / "b")
    names = [path.relative_to(tmp_path / "data").as_posix() for path in find(tmp_path / "data", "**/*_seg.nii.gz")]
    assert names == ["a/inner/x_seg.nii.gz", "b/x_seg.nii.gz"]
    assert find(tmp_path / "nowhere", "**/*") == []
