"""Fetching, from a file server on this machine: whole, resumed, wrong, hostile, present, and what needs a person."""

import ast
import gzip
import hashlib
import io
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from segbench.cli import main
from segbench.core import cards
from segbench.core.errors import InputError, RunFailed
from segbench.data.fetch import CHUNK_BYTES, fetch
from segbench.data.presence import presence
from tests.unit.data.file_server import file_server
from tests.unit.data.miniature import write_tree

CARDS = cards.dataset_cards()
ARCHIVE = "Task09_Spleen.tar"


@pytest.fixture
def server():
    with file_server() as running:
        yield running


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A miniature Task09_Spleen of five cases, with the hidden files of a Mac."""
    root = tmp_path_factory.mktemp("tree")
    write_tree(root, "msd_spleen", CARDS["msd_spleen"])
    (root / "Task09_Spleen" / "imagesTr" / "._hidden.nii.gz").write_bytes(b"finder")
    return root / "Task09_Spleen"


@pytest.fixture(scope="module")
def content(tree) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(tree, arcname="Task09_Spleen")
    return stream.getvalue()


def spleen(server, content: bytes, **changes) -> dict:
    """The spleen's card with five cases, downloaded from the server."""
    server.files[ARCHIVE] = content
    item = {"url": server.url(ARCHIVE), "unpacks_to": "Task09_Spleen", "checksum": md5(content)} | changes
    return CARDS["msd_spleen"] | {"expected_cases": {"total": 5}, "downloads": [item]}


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


def tar_of(*members: tarfile.TarInfo) -> bytes:
    """A tar archive with Task09_Spleen/a and the given members."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for member in (tarfile.TarInfo("Task09_Spleen/a"), *members):
            archive.addfile(member)
    return stream.getvalue()


def member(name: str, **fields) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def test_an_archive_is_downloaded_unpacked_and_then_left_alone(server, content, tree, tmp_path):
    card = spleen(server, content)
    assert presence("msd_spleen", card, tmp_path) == "absent"
    assert fetch("msd_spleen", card, tmp_path) == "present (5 cases)"
    assert [path.name for path in tmp_path.iterdir()] == ["Task09_Spleen"], "no archive or working folder is left"
    for path in (tmp_path / "Task09_Spleen" / "imagesTr").iterdir():
        assert path.read_bytes() == (tree / "imagesTr" / path.name).read_bytes()
    assert not list(tmp_path.rglob("._*"))
    assert fetch("msd_spleen", card, tmp_path) == "present (5 cases)"
    assert server.ranges == [None], "what is present is not asked for again"


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server, content, tmp_path):
    server.cuts = [CHUNK_BYTES, 2 * CHUNK_BYTES + 1]
    assert fetch("msd_spleen", spleen(server, content), tmp_path) == "present (5 cases)"
    assert server.ranges == [None, f"bytes={CHUNK_BYTES}-", f"bytes={3 * CHUNK_BYTES}-"]


def test_a_later_run_goes_on_with_what_an_earlier_one_kept(server, content, tmp_path):
    card = spleen(server, content)
    server.cuts = [CHUNK_BYTES, 0]
    with pytest.raises(RunFailed, match=f"{CHUNK_BYTES} bytes are kept, run again to go on"):
        fetch("msd_spleen", card, tmp_path)
    assert fetch("msd_spleen", card, tmp_path) == "present (5 cases)"
    assert server.ranges[-1] == f"bytes={CHUNK_BYTES}-"


def test_a_whole_download_of_an_interrupted_run_is_used(server, content, tmp_path):
    (tmp_path / ".fetch").mkdir()
    (tmp_path / ".fetch" / ARCHIVE).write_bytes(content)
    assert fetch("msd_spleen", spleen(server, content), tmp_path) == "present (5 cases)"
    assert server.ranges == [f"bytes={len(content)}-"]


def test_a_wrong_checksum_leaves_nothing_and_names_both(server, content, tmp_path):
    expected = "0" * 32
    with pytest.raises(InputError, match=f"found {md5(content).replace(':', ' ')}; expected {expected}"):
        fetch("msd_spleen", spleen(server, content, checksum=f"md5:{expected}"), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (member("../outside"), "a path that leaves the folder (../outside)"),
        (member("Task09_Spleen/../../outside"), "a path that leaves the folder"),
        (member("/outside"), "a path that leaves the folder (/outside)"),
        (member("Task09_Spleen/b", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a link or device"),
        (member("Task09_Spleen/b", type=tarfile.LNKTYPE, linkname="Task09_Spleen/a"), "a link or device"),
        (member("Task09_Spleen/b", type=tarfile.FIFOTYPE), "a link or device"),
    ],
)
def test_a_hostile_tar_is_refused_before_anything_is_written(server, tmp_path, bad, words):
    content, root = tar_of(bad), tmp_path / "data"
    with pytest.raises(InputError) as caught:
        fetch("msd_spleen", spleen(server, content), root)
    assert words in caught.value.problems[0].line()
    assert not list(root.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_hostile_zip_is_refused_and_a_good_one_unpacked(server, tree, tmp_path):
    link = zipfile.ZipInfo("Task09_Spleen/link")
    link.external_attr = 0o120777 << 16
    for name in ("../outside", link):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr(name, "/etc/passwd")
        server.files["a.zip"] = stream.getvalue()
        card = spleen(server, b"", url=server.url("a.zip"), checksum=None)
        with pytest.raises(InputError, match=r"leaves the folder|link or device"):
            fetch("msd_spleen", card, tmp_path)
        assert not list(tmp_path.iterdir())
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in tree.rglob("*.*"):
            archive.write(path, f"Task09_Spleen/{path.relative_to(tree)}")
    server.files["a.zip"] = stream.getvalue()
    assert fetch("msd_spleen", card, tmp_path) == "present (5 cases)"


def test_a_damaged_archive_without_a_checksum_is_a_problem(server, content, tmp_path):
    for damaged in (b"no archive", content[: len(content) // 2], b""):
        with pytest.raises(InputError, match="a damaged archive"):
            fetch("msd_spleen", spleen(server, damaged, checksum=None), tmp_path)
        assert not list(tmp_path.iterdir())
    server.files["a.tar.gz"] = gzip.compress(content)[:-2000]
    with pytest.raises(InputError, match="a damaged archive"):
        fetch("msd_spleen", spleen(server, b"", checksum=None, url=server.url("a.tar.gz")), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_archive_with_another_top_folder_is_a_problem(server, content, tmp_path):
    with pytest.raises(InputError, match="found no folder Task10_Colon"):
        fetch("msd_spleen", spleen(server, content, unpacks_to="Task10_Colon"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_lacks_cases_is_not_overwritten(server, content, tmp_path):
    card = spleen(server, content)
    write_tree(tmp_path, "msd_spleen", card, cases=3)
    with pytest.raises(InputError, match=r"partial \(3 of 5 cases\).*move the folder away"):
        fetch("msd_spleen", card, tmp_path)
    assert server.ranges == []


def test_only_the_archives_that_are_missing_are_fetched(server, tmp_path):
    """VerSe20 has three archives; cases lie in the third only here."""
    parts = {part: tmp_path / "data" / "VerSe20" / part for part in ("dataset-01training", "dataset-02validation")}
    for path in parts.values():
        path.mkdir(parents=True)
    write_tree(tmp_path / "source", "verse20", CARDS["verse20"])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        source = tmp_path / "source" / "VerSe20"
        for path in (source / "dataset-03test").rglob("*.nii.gz"):
            archive.write(path, path.relative_to(source))
    server.files["3.zip"] = stream.getvalue()
    items = [{"url": server.url("3.zip"), "unpacks_to": item["unpacks_to"]} for item in CARDS["verse20"]["downloads"]]
    card = CARDS["verse20"] | {"expected_cases": {"total": 2}, "downloads": items}
    assert fetch("verse20", card, tmp_path / "data").startswith("present")
    assert server.ranges == [None]


def test_the_command_fetches_what_it_may_and_names_the_step_for_the_others(
    server, content, tmp_path, monkeypatch, capsys
):
    known = CARDS | {"msd_spleen": spleen(server, content)}
    monkeypatch.setattr(cards, "dataset_cards", lambda: known)
    assert main(["fetch", "btcv", "msd_spleen", "kits19", "--data-root", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "msd_spleen: present (5 cases)\n"
    lines = [line for line in err.splitlines() if "; expected" in line]
    assert len(lines) == 2
    assert f"{tmp_path}/BTCV: found absent" in lines[0]
    assert "register at Synapse" in lines[0]
    assert "git clone https://github.com/neheller/kits19" in lines[1]


def test_the_command_suggests_a_name_and_reports_a_failing_server_in_one_line(
    server, content, tmp_path, monkeypatch, capsys
):
    assert main(["fetch", "msd_splen", "--data-root", str(tmp_path)]) == 2
    assert "did you mean 'msd_spleen'?" in capsys.readouterr().err
    card = spleen(server, content)
    server.files.clear()
    monkeypatch.setattr(cards, "dataset_cards", lambda: {"msd_spleen": card})
    assert main(["fetch", "msd_spleen", "--data-root", str(tmp_path)]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("segbench fetch")]
    assert len(lines) == 1
    assert "404" in lines[0]
    assert "nothing was received" in lines[0]
    assert not list(tmp_path.iterdir())


def test_an_unreachable_server_and_a_closed_folder_are_one_line_each(server, content, tmp_path):
    card = spleen(server, content, url="http://127.0.0.1:9/Task09_Spleen.tar")
    with pytest.raises(RunFailed, match="nothing was received, run again"):
        fetch("msd_spleen", card, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailed, match="file"):
        fetch("msd_spleen", spleen(server, content), tmp_path / "file")


@pytest.mark.parametrize("name", [name for name, card in CARDS.items() if card["downloads"]])
def test_a_card_with_downloads_is_whole(name):
    card = CARDS[name]
    assert f"python -m segbench fetch {name}" in card["obtain"]
    for item in card["downloads"]:
        assert item["url"].startswith("https://")
        assert item["unpacks_to"].split("/")[0] == card["folder"]


def monai_tables() -> tuple[dict, dict]:
    """DecathlonDataset.resource and .md5 of the installed MONAI, read from its source: importing it takes 15 s."""
    source = Path(find_spec("monai").origin).parent / "apps" / "datasets.py"
    (found,) = (node for node in ast.parse(source.read_text()).body if getattr(node, "name", "") == "DecathlonDataset")
    tables = {node.targets[0].id: node.value for node in found.body if isinstance(node, ast.Assign)}
    return ast.literal_eval(tables["resource"]), ast.literal_eval(tables["md5"])


def test_decathlon_addresses_and_checksums_are_those_that_monai_publishes():
    resource, md5 = monai_tables()
    seen = set()
    for card in CARDS.values():
        for item in card["downloads"]:
            task = item["unpacks_to"].split("/")[-1]
            if task in resource:
                assert (item["url"], item["checksum"]) == (resource[task], f"md5:{md5[task]}")
                seen.add(task[:6])
    assert seen == {"Task03", "Task04", "Task06", "Task07", "Task08", "Task09", "Task10"}


@pytest.mark.parametrize(
    "change",
    [
        {"downloads": [{"url": "http://x.org/a.tar", "unpacks_to": "a"}]},
        {"downloads": [{"url": "https://x.org/a.tar", "unpacks_to": "../a"}]},
        {"downloads": [{"url": "https://x.org/a.tar", "unpacks_to": "a", "checksum": "md5:1"}]},
        {"merge": {"3-x": 1}},
        {"merge": [3]},
    ],
)
def test_a_card_with_a_bad_download_or_range_is_refused(change):
    with pytest.raises(InputError):
        cards.checked(CARDS["msd_spleen"] | change, cards.DatasetCard, "card")


def test_a_range_of_merged_values_stands_for_every_value():
    card = cards.checked(CARDS["msd_spleen"] | {"merge": {"2-4": 1, 9: 0}}, cards.DatasetCard, "card")
    assert card["merge"] == {2: 1, 3: 1, 4: 1, 9: 0}
