"""Events for TensorBoard: written when asked for, no part of an identity, refused without the package."""

import importlib.util
import sys
import types

import pytest

from segbench.cli import _tensorboard as tensorboard
from segbench.cli import main
from segbench.core.files import write_json
from segbench.core.paths import RunPaths
from tests.unit.training.small_run import config, write_data

JOB = "upstream.uniseg.random.joint.f0.s0"
PATHS = RunPaths("small")


class Writer:
    """Stands in for `torch.utils.tensorboard.SummaryWriter`."""

    made: list["Writer"] = []

    def __init__(self, folder: str, purge_step: int):
        self.folder, self.purge_step, self.scalars = folder, purge_step, []
        self.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, step))

    def flush(self) -> None:
        pass


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose data are there, and a stand-in for the package."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    write_json(PATHS.config, config().model_dump(mode="json"))
    monkeypatch.setattr(Writer, "made", [])
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return ["train", "--config", str(PATHS.config), "--job", JOB]


def installed(monkeypatch, *, is_there: bool) -> None:
    find = importlib.util.find_spec

    def found(name: str, package: str | None = None) -> object:
        return (object() if is_there else None) if name == "tensorboard" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", found)


def test_each_row_of_the_log_is_an_event(run, monkeypatch):
    monkeypatch.setenv(tensorboard.VARIABLE, "1")
    installed(monkeypatch, is_there=True)
    assert main(run) == 0
    writer = Writer.made[0]
    assert (writer.folder, writer.purge_step) == (str(PATHS.events(JOB)), 1)
    assert [step for name, step in writer.scalars if name == "loss"] == list(range(1, 9))
    record = (PATHS.train(JOB) / "record.json").read_bytes()
    monkeypatch.delenv(tensorboard.VARIABLE)
    assert main(run) == 0
    assert (PATHS.train(JOB) / "record.json").read_bytes() == record, "done before: a display is no setting"


@pytest.mark.parametrize(
    ("value", "is_there", "expected"),
    [("1", False, "found no package tensorboard"), ("yes", True, "found 'yes'; expected 1, 0 or nothing")],
)
def test_what_cannot_be_shown_is_refused(run, monkeypatch, capsys, value, is_there, expected):
    monkeypatch.setenv(tensorboard.VARIABLE, value)
    installed(monkeypatch, is_there=is_there)
    assert main(run) == 2
    assert expected in capsys.readouterr().err
    assert not PATHS.train(JOB).exists()


@pytest.mark.parametrize("value", ["", "0"])
def test_nothing_is_written_unless_asked_for(monkeypatch, value):
    monkeypatch.setenv(tensorboard.VARIABLE, value)
    assert not tensorboard.asked_for()
