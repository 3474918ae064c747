import csv

import pytest

from segbench.core.errors import InputError
from segbench.core.vocabulary import SCORE_COLUMNS
from segbench.stats.scores import MOST_PROBLEMS, read_scores

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


def test_no_file_and_no_rows_are_problems(tmp_path):
    assert "No such file" in problems_of(tmp_path / "none.csv")[0]
    assert "no rows" in problems_of(write(tmp_path / "s.csv"))[0]


@pytest.mark.parametrize("status", ["prediction_missing", "not_defined", "skipped", "failed"])
def test_a_value_beside_a_status_without_one_is_refused(status):
    with pytest.raises(InputError, match="no value beside the status"):
        table({"status": status, "value": 0.5})


def test_a_negative_volume_is_refused():
    with pytest.raises(InputError, match="reference_volume_mm3"):
        table({"reference_volume_mm3": -1.0})
