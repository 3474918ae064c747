import csv
import gzip
import re

import pandas as pd
import pytest

from segbench.core.errors import InputError
from segbench.core.vocabulary import SCORE_COLUMNS
from segbench.stats.scores import MOST_PROBLEMS, _roundings, read_csv_text, read_scores, table_text

from .score_tables import ROW, table


def write(path, *rows, columns=SCORE_COLUMNS):
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for row in rows:
            full = ROW | row
            writer.writerow([full[name] for name in columns])
    return path


def problems_of(path):
    with pytest.raises(InputError) as caught:
        read_scores(path)
    return [problem.line() for problem in caught.value.problems]


def test_rows_are_typed_and_blank_patients_become_cases(tmp_path):
    rows = read_scores(
        write(tmp_path / "s.csv", {"case": "NA"}, {"case": "c2", "value": "", "status": "failed", "patient": "p"})
    )
    assert rows["value"].isna().tolist() == [False, True]
    assert rows["patient"].tolist() == ["NA", "p"]
    assert rows["seed"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"value": "much"}, ["line 2: value", "'much'", "finite number"]),
        ({"value": "inf"}, ["line 2: value", "'inf'"]),
        ({"metric": "hd95", "unit_of_value": "cm"}, ["line 2: unit_of_value", "'cm'", "mm or nothing"]),
        ({"value": 87.3}, ["87.3", "fraction in 0..1", "divide per cent by 100"]),
        ({"value": ""}, ["line 2: value", "beside status ok"]),
        ({"status": "oke"}, ["'oke'", "did you mean 'ok'?"]),
        ({"metric": "dise"}, ["'dise'", "did you mean 'dice'?"]),
        ({"seed": "one"}, ["line 2: seed", "whole number"]),
        ({"reference_volume_mm3": "big"}, ["reference_volume_mm3", "'big'"]),
        ({"reference_volume_mm3": "0"}, ["more than 0 beside the status ok"]),
        (
            {"status": "prediction_empty", "value": "0"},
            ["prediction_volume_mm3", "0 beside the status prediction_empty"],
        ),
        (
            {"status": "prediction_empty", "value": "0.4", "prediction_volume_mm3": "0"},
            ["'0.4'", "beside the status prediction_empty"],
        ),
        (
            {"metric": "hd95", "status": "reference_empty", "value": "300", "reference_volume_mm3": "0"},
            ["'300.0'", "beside the status reference_empty"],
        ),
    ],
)
def test_a_bad_cell_is_one_line_with_its_place(tmp_path, row, words):
    (line,) = problems_of(write(tmp_path / "s.csv", row))
    assert all(word in line for word in [str(tmp_path / "s.csv"), *words])


@pytest.mark.parametrize("metric", ["hd95", "hd95_max", "hd", "assd", "masd"])
def test_a_distance_above_the_diagonal_is_refused(metric):
    with pytest.raises(InputError, match=r"found '300\.2'; expected at most diagonal_mm"):
        table({"metric": metric, "value": 300.2})
    table({"metric": metric, "value": 300.0})


def test_an_overlap_that_the_volumes_do_not_permit_is_refused():
    """A mask of 100 mm3 inside one of 300 mm3: Dice 200 / 400, IoU 100 / 300."""
    volumes = {"reference_volume_mm3": 300.0, "prediction_volume_mm3": 100.0}
    table({"value": 0.5, **volumes}, {"metric": "iou", "value": 0.3333, **volumes})
    table({"value": "0.50", **volumes, "prediction_volume_mm3": 99.0})  # 0.496, written with two decimals
    for row in ({"value": 0.5123}, {"metric": "iou", "value": 0.3433}):
        with pytest.raises(InputError, match="possible with both volumes"):
            table(row | volumes)
    table({"value": 0.9, "prediction_volume_mm3": float("nan")})


def test_dice_and_iou_of_one_cell_agree_within_their_rounding():
    """IoU 0.5 is Dice 2/3."""
    for dice, iou in ((0.6667, 0.5), ("0.67", "0.50"), (0.0, 0.0), (1.0, 1.0)):
        table({"value": dice}, {"metric": "iou", "value": iou})
    for dice, iou in (("0.6690", "0.5000"), (0.5, 0.9)):
        with pytest.raises(InputError, match=r"2 IoU / \(1 \+ IoU\)"):
            table({"value": dice}, {"metric": "iou", "value": iou})
    table({"value": 0.5, "case": "d"}, {"metric": "iou", "value": 0.9})


@pytest.mark.parametrize("metric", ["hd95", "hd95_max", "assd", "masd"])
def test_no_distance_is_above_the_hausdorff_distance_of_its_masks(metric):
    table({"metric": metric, "value": "4.0"}, {"metric": "hd", "value": "3.96"})
    table({"metric": metric, "value": 5.0, "model": "b"}, {"metric": "hd", "value": 4.0})
    with pytest.raises(InputError, match=r"found '5\.0'; expected at most the hd of the same masks"):
        table({"metric": metric, "value": 5.0}, {"metric": "hd", "value": 4.0})


@pytest.mark.parametrize(
    ("metric", "possible", "impossible"),
    [
        ("volume_error_ml", 0.2, 0.3),
        ("volume_error_ml", "0.20", 0.1),
        ("false_positive_volume_ml", 0.1, 0.11),
        ("autopet_false_positive_volume_ml", 0.1, 0.11),
        ("autopet_false_negative_volume_ml", 0.3, 0.31),
    ],
)
def test_a_volume_that_both_masks_do_not_permit_is_refused(metric, possible, impossible):
    volumes = {"reference_volume_mm3": 300.0, "prediction_volume_mm3": 100.0}
    table({"metric": metric, "value": possible, **volumes})
    table(
        {"metric": metric, "value": impossible, **volumes, "reference_volume_mm3": None, "prediction_volume_mm3": None}
    )
    with pytest.raises(InputError, match="in ml; correct value or volumes"):
        table({"metric": metric, "value": impossible, **volumes})


def test_a_blank_patient_is_that_of_the_other_rows_of_its_case():
    rows = table({"patient": "p"}, {"model": "b"}, {"case": "d"})
    assert rows["patient"].tolist() == ["p", "p", "d"]


def test_a_key_twice_is_a_problem(tmp_path):
    (line,) = problems_of(write(tmp_path / "s.csv", {"value": 0.1}, {"case": "other"}, {"value": 0.2}))
    assert "line 4" in line
    assert "seen before" in line


def test_all_problems_come_at_once_up_to_a_limit(tmp_path):
    lines = problems_of(write(tmp_path / "s.csv", {"value": "x", "status": "y"}, {"case": "d", "metric": "z"}))
    assert len(lines) == 3
    many = problems_of(write(tmp_path / "t.csv", *({"case": f"c{i}", "value": "x"} for i in range(30))))
    assert len(many) == MOST_PROBLEMS + 1
    assert "10 further problems" in many[-1]


def test_columns_must_be_exact(tmp_path):
    missing = problems_of(write(tmp_path / "s.csv", {}, columns=SCORE_COLUMNS[:-1]))
    assert any("no column 'diagonal_mm'" in line for line in missing)
    shuffled = problems_of(write(tmp_path / "t.csv", {}, columns=SCORE_COLUMNS[::-1]))
    assert any("another order" in line for line in shuffled)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'a,b\n"1,2\n3'])
def test_an_unreadable_file_is_one_problem(tmp_path, content):
    path = tmp_path / "s.csv"
    path.write_bytes(content)
    assert str(path) in problems_of(path)[0]


TEXT = "a,b\n1,ü\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.replace("\n", "\r\n").encode("utf-16"),
        gzip.compress(TEXT.encode(), mtime=0),
        (TEXT + ",\n , \n\n").encode(),
        b"\n" + TEXT.encode(),
        TEXT.replace("\n", ",,\n").encode(),
        TEXT.replace("ü\n", "ü,\n").encode(),
    ],
)
def test_a_table_is_read_whatever_program_wrote_it(tmp_path, content):
    (tmp_path / "s.csv").write_bytes(content)
    assert read_csv_text(tmp_path / "s.csv").to_dict("list") == {"a": ["1"], "b": ["ü"]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (TEXT.encode("latin1"), "save the table as CSV UTF-8"),
        (TEXT.encode("utf-16-le"), "save the table as CSV UTF-8"),
        (b"PK\x03\x04abc", "export it as CSV"),
        (b"\xd0\xcf\x11\xe0abc", "export it as CSV"),
        (b"\x1f\x8babc", "check the file"),
        (b"a,b,a\n1,2,3\n", "column 'a' twice"),
        (b"a,b\n1,2\n1,2,3\n", "row 3: found more cells than the 2 names of the head"),
        (b'a,b\n1,"2\n1,2\n', "close the quotes"),
        (b"\n\n", "an empty file"),
    ],
)
def test_a_table_that_would_be_misread_is_refused(tmp_path, content, words):
    (tmp_path / "s.csv").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(words)):
        read_csv_text(tmp_path / "s.csv")


def test_no_file_and_no_rows_are_problems(tmp_path):
    assert "No such file" in problems_of(tmp_path / "none.csv")[0]
    assert "no rows" in problems_of(write(tmp_path / "s.csv"))[0]


def test_a_small_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("segbench.stats.scores.MOST_BYTES", 1000)
    (tmp_path / "scores.csv").write_bytes(gzip.compress(b"a" * 1_000_000))
    with pytest.raises(InputError, match="GB of text"):
        table_text(tmp_path / "scores.csv")


@pytest.mark.parametrize("status", ["prediction_missing", "not_defined", "skipped", "failed"])
def test_a_value_beside_a_status_without_one_is_refused(status):
    with pytest.raises(InputError, match="no value beside the status"):
        table({"status": status, "value": 0.5})


def test_a_negative_volume_is_refused():
    with pytest.raises(InputError, match="reference_volume_mm3"):
        table({"reference_volume_mm3": -1.0})


def test_the_roundings_of_no_cell_are_numbers():
    """With pyarrow a text cannot be added to a number, not even where there is none."""
    assert _roundings(pd.Series([], dtype="str")).dtype == float
    assert _roundings(pd.Series(["1.5", "2"], dtype="str")).dtype == float
