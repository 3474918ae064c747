"""A user's own table of cases and card: what is wrong with them is one line each, never a traceback."""

import os

import pytest
import yaml

from segbench.cli import main
from tests.bad_input.corpus import healthy

HEAD = "case,patient,CT,label,age\n"
ROW = "{0},p{0},imagesTr/case_{0}.nii.gz,labelsTr/case_{0}.nii.gz,\n"
CARD = {
    "title": "Mine",
    "layout": "table",
    "folder": "Mine",
    "channels": [{"name": "CT", "modality": "CT"}],
    "classes": {"1": "liver", "2": "tumour"},
    "preprocessing": "ct",
    "patient_namespace": "mine",
    "licence": "internal",
    "structures": [{"name": "liver", "labels": [1], "tolerance_mm": 1.0}],
    "citation": "none",
    "url": "",
    "permits": {"commercial": False, "show_images": False},
    "obtain": "ask the owner",
}


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Return a function that checks a table and a card and returns the status and the lines of its problems."""
    monkeypatch.chdir(tmp_path)
    healthy(tmp_path / "data" / "Mine")

    def run(table: str | bytes | None = None, **card) -> tuple[int, str]:
        text = HEAD + "".join(ROW.format(number) for number in range(3)) if table is None else table
        path = tmp_path / "data" / "Mine" / "cases.csv"
        if not path.exists():
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        (tmp_path / "cards").mkdir()
        (tmp_path / "cards" / "mine.yaml").write_text(yaml.safe_dump(CARD | card))
        config = {
            "run": "x",
            "data": {"root": "data", "cards": ["cards"]},
            "upstream": {"tasks": ["mine"], "models": ["uniseg"]},
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        return main(["check", "--config", "config.yaml"]), capsys.readouterr().err

    return run


def test_a_table_is_accepted_with_other_columns_and_a_byte_order_mark(check):
    assert check("\ufeff" + HEAD + ROW.format(0) + ROW.format(1))[0] == 0


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (b"\xff\xfe\x00", "no table (text in another encoding"),
        ("", "found columns []"),
        (HEAD, "no labelled case"),
        ("case,patient,label\n", "also ['CT']"),
        (HEAD + "0,p0\n", "line 2: found empty or extra cells"),
        (HEAD + ROW.format(0).strip() + ",more\n", "line 2: found empty or extra cells"),
        (HEAD + "," + ROW.format(0)[2:], "line 2: found empty or extra cells"),
        (HEAD + '"' + ROW.format(0) + '"' + ROW.format(1), "close the quotes"),
        (HEAD + ROW.format(0) + '"' + ROW.format(1), "close the quotes"),
        (HEAD + "../../0" + ROW.format(0)[1:], "the case id '../../0'"),
        (HEAD + "a|b" + ROW.format(0)[1:], "the case id 'a|b'"),
        (HEAD + "a\0b" + ROW.format(0)[1:], "the case id 'a\\x00b'"),
        (HEAD + ROW.format(0) * 2, "the case id 2 times"),
        (HEAD + "0,p0,../x.nii.gz,/etc/hostname,\n", "a path outside the folder (/etc/hostname)"),
        (HEAD + "0,p0,imagesTr/no.nii.gz,labelsTr/case_0.nii.gz,\n", "no file"),
    ],
)
def test_a_wrong_table_is_refused(check, table, words):
    status, text = check(table)
    assert status == 2
    assert words in text


def test_two_tables_are_refused(check, tmp_path):
    (tmp_path / "data" / "Mine" / "cases.tsv").write_text("")
    status, text = check()
    assert status == 2
    assert "found cases.csv and cases.tsv; expected one table" in text


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir])
def test_a_pipe_or_a_folder_is_no_table(check, tmp_path, put):
    put(tmp_path / "data" / "Mine" / "cases.csv")
    status, text = check()
    assert status == 2
    assert "no regular file" in text


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ({"patient_pattern": "("}, "a regular expression"),
        ({"patient_pattern": "^P"}, "0 groups"),
        ({"classes": {"1": "liver", "3": "tumour"}}, "class values [1, 3]"),
        ({"classes": {"liver": "1"}}, "class values ['liver']"),
        ({"structures": CARD["structures"] * 2}, "the structure 'liver' twice"),
        ({"preprocessing": "cta"}, "did you mean"),
        ({"layout": "dicom"}, "layout: found 'dicom'"),
    ],
)
def test_a_wrong_card_is_refused(check, card, words):
    status, text = check(**card)
    assert status == 2
    assert words in text
