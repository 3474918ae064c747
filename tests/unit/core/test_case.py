"""Manifests come back as they were written; any other content is refused with its line."""

import pytest

from segbench.core.case import Case, read_manifest, write_manifest
from segbench.core.errors import InputError


def case(name: str, **changes) -> Case:
    facts = {
        "task": "liver",
        "case_id": name,
        "patient_id": "p",
        "image_paths": ("a.nii.gz", "b.nii.gz"),
        "label_path": "l.nii.gz",
        "image_sha256": "1",
        "label_sha256": "2",
        "shape_xyz": (3, 4, 5),
        "spacing_mm_xyz": (0.5, 1.0, 2.5),
        "orientation": "RAS",
    }
    return Case(**{**facts, **changes})


def test_cases_come_back_in_order(tmp_path):
    path = tmp_path / "liver.csv"
    write_manifest(path, [case("b"), case("a")])
    assert read_manifest(path) == [case("a"), case("b")]
    write_manifest(path, [])
    assert read_manifest(path) == []


def test_a_file_name_with_the_separator_is_refused():
    with pytest.raises(InputError, match="rename the file"):
        case("a", image_paths=("a|b.nii.gz",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("orientation", "direction"), "columns"),
        (lambda text: text.replace("3|4|5", "3|4"), "line 2"),
        (lambda text: text.replace("3|4|5", "3|4|5|6"), "line 2"),
        (lambda text: text.replace("3|4|5", "3|x|5"), "line 2"),
        (lambda text: text[: text.index("3|4|5")], "line 2: found another number of cells"),
        (lambda text: text.rstrip("\n") + ",more\n", "line 2: found another number of cells"),
        (lambda text: text + text.splitlines()[1] + "\n", "line 3: found the case a again"),
        (lambda text: "", "columns"),
        (lambda text: "\0", "columns"),
    ],
)
def test_a_manifest_that_was_changed_is_refused(tmp_path, change, message):
    path = tmp_path / "liver.csv"
    write_manifest(path, [case("a")])
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=message) as caught:
        read_manifest(path)
    assert "run ingest again" in str(caught.value)


def test_an_absent_manifest_and_one_that_is_no_text_are_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"bytes\.csv"):
        read_manifest(tmp_path / "bytes.csv")


def test_the_classes_that_were_looked_for_come_back_and_need_a_column_only_where_they_are_stated(tmp_path):
    path = tmp_path / "liver.csv"
    cases = [case("a", annotated=(1, 3)), case("b")]
    write_manifest(path, cases)
    assert read_manifest(path) == cases
    assert [cases[0].is_annotated(labels) for labels in ([3], [1, 2])] == [True, False]
    assert cases[1].is_annotated([2])
    write_manifest(path, cases[1:])
    assert "annotated" not in path.read_text()
