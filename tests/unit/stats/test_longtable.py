"""Tables of other origin: how they are read, and what in them cannot be true of two methods side by side."""

from __future__ import annotations

import pytest

from segbench.core.errors import InputError
from segbench.stats.longtable import read_long
from segbench.stats.methods import check_complete

from .score_tables import table

HEAD = "model,task,case,structure,metric,value"
ROWS = ["a,T,c0,organ,dice,0.5", "b,T,c0,organ,dice,0.25"]


def read(tmp_path, *lines):
    (tmp_path / "s.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_long(tmp_path / "s.csv")


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;"])
def test_the_separator_that_excel_writes_is_used(tmp_path, first):
    lines = [line.replace(",", ";").replace("0.", "0,") for line in (HEAD, *ROWS)]
    assert read(tmp_path, first, *lines).equals(read(tmp_path, HEAD, *ROWS))


@pytest.mark.parametrize("blank", [" ", "\u00a0", "\u200b"])
def test_blanks_around_cells_are_no_part_of_them(tmp_path, blank):
    lines = [line.replace(",", f"{blank},{blank}") for line in (HEAD, *ROWS)]
    assert read(tmp_path, *lines).equals(read(tmp_path, HEAD, *ROWS))


def test_rows_of_separators_alone_are_blank(tmp_path):
    assert read(tmp_path, HEAD, *ROWS, ",,,,,", ",,,,,").equals(read(tmp_path, HEAD, *ROWS))


def test_another_separator_is_named(tmp_path):
    with pytest.raises(
        InputError, match=r"found one column, .*; expected commas, semicolons or tabs between cells"
    ) as error:
        read(tmp_path, *(line.replace(",", "|") for line in (HEAD, *ROWS)))
    assert len(str(error.value).splitlines()) == 1


def test_a_footnote_is_named_with_its_line(tmp_path):
    with pytest.raises(InputError, match="line 4: metric: found ''"):
        read(tmp_path, HEAD, *ROWS, '"values of March"')


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("b,", "A,", "model: found 'A' and 'a'"),
        ("b,T,c0,organ", "b,T,c0,Organ", "task T: structure: found 'Organ' and 'organ'"),
        ("b,T", "b,t", "task: found 'T' and 't'"),
        ("b,T,c0", "b,T,C00", "task T: case: found 'C00' and 'c0'"),
        (",T,", ",All Tasks,", "task 'All Tasks': found the name of the mean over tasks"),
    ],
)
def test_one_name_in_two_spellings_and_the_name_of_the_mean_are_refused(tmp_path, old, new, words):
    with pytest.raises(InputError, match=words):
        read(tmp_path, HEAD, *(row.replace(old, new) for row in ROWS))


def test_numbers_in_names_of_models_count(tmp_path):
    lines = [ROWS[0].replace("a,", "lr0.1,"), ROWS[1].replace("b,", "lr0.01,")]
    assert set(read(tmp_path, HEAD, *lines)["model"]) == {"lr0.1", "lr0.01"}


def test_patients_in_two_spellings_and_two_patients_of_a_case_are_refused(tmp_path):
    with pytest.raises(InputError, match="dataset T: patient: found 'P01' and 'p1'"):
        read(tmp_path, f"{HEAD},patient", f"{ROWS[0]},p1", f"{ROWS[0]},P01".replace("c0", "d"))
    with pytest.raises(InputError, match="case c0 of task T: found the patients p and q"):
        read(tmp_path, f"{HEAD},patient", f"{ROWS[0]},p", f"{ROWS[1]},q")


def test_methods_that_were_scored_against_different_references_are_refused():
    """Rounding to whole mm3 is no difference."""
    check_complete(table({"reference_volume_mm3": 1000.4}, {"model": "b", "reference_volume_mm3": 1000.0}, value=0.001))
    with pytest.raises(InputError, match="1000 and 5000 mm3: methods scored against different references"):
        check_complete(
            table({"reference_volume_mm3": 1000.0}, {"model": "b", "reference_volume_mm3": 5000.0}, value=0.0001)
        )


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_sign_for_thousands_is_not_taken_for_a_decimal_comma(tmp_path, separator):
    rows = [HEAD, "a,T,c0,organ,hd95,12.5", "b,T,c0,organ,hd95,_"]
    lines = [row.replace(",", separator).replace("_", "1,234") for row in rows]
    with pytest.raises(InputError, match=r"numbers with a comma \(1,234\) and with a point \(12.5\)"):
        read(tmp_path, *lines)
