"""A file of weights that is missing, changed, corrupted, malicious or foreign: one line, status 2, nothing written."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from segbench.cli import main
from segbench.cli._job import run_job
from segbench.core.files import sha256_of, write_json
from segbench.experiment.context import JobContext
from segbench.experiment.preprocessed_index import PreprocessedIndex
from segbench.training.initialise import initialise
from segbench.training.loop import new_model
from tests.unit.models.weights.test_formats import genesis, plain_unet
from tests.unit.written_run import splits_content
from tests.workflow.tiny import CONFIG

RAN = "executed"


class Malicious:
    """Creates a file when it is unpickled with code execution allowed."""

    def __reduce__(self):
        return (open, (RAN, "w"))


def corrupted(change):
    checkpoint = genesis()
    change(checkpoint["state_dict"])
    return checkpoint


def write(content):
    return lambda path: torch.save(content, path)


def truncated(path):
    torch.save(genesis(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


STEM = "module.down_tr64.ops.0.conv1.weight"
FILES = {
    "missing": (lambda path: None, "found No such file or directory"),
    "a folder": (lambda path: path.mkdir(), "found Is a directory"),
    "empty": (lambda path: path.write_bytes(b""), "does not load safely"),
    "text": (lambda path: path.write_text("weights"), "does not load safely"),
    "truncated": (truncated, "does not load safely"),
    "executes code": (write({"state_dict": genesis()["state_dict"], "hook": Malicious()}), "does not load safely"),
    "plain pickle that executes code": (
        lambda path: path.write_bytes(pickle.dumps(Malicious())),
        "does not load safely",
    ),
    "object array": (write({"weight": np.array([{}, None], dtype=object)}), "does not load safely"),
    "no dictionary": (write(torch.zeros(3)), "found Tensor"),
    "an entry that is no tensor": (write(plain_unet() | {"lr": 0.1}), "found lr: float; expected a tensor"),
    "nan": (
        write(corrupted(lambda state: state[STEM].fill_(torch.nan))),
        "down_tr64.ops.0.conv1.weight with nan or inf",
    ),
    "another model": (write({"encoder.weight": torch.zeros(3, 1, 3, 3, 3)}), "found no down_tr64.ops.0.conv1.weight"),
    "a missing tensor": (
        write(corrupted(lambda state: state.pop(STEM))),
        "no down_tr64.ops.0.conv1.weight; expected shape (8, 1, 3, 3, 3)",
    ),
    "a reshaped tensor": (
        write(corrupted(lambda state: state.update({STEM: torch.zeros(8, 2, 3, 3, 3)}))),
        "of shape (8, 2, 3, 3, 3); expected shape (8, 1, 3, 3, 3)",
    ),
    "wider": (write(plain_unet(base=16)), "tensors missing or of another shape"),
    "whole numbers": (
        write(corrupted(lambda state: state.update({STEM: state[STEM].to(torch.int8)}))),
        "tensor down_tr64.ops.0.conv1.weight of shape (8, 1, 3, 3, 3) and type int8; expected shape (8, 1, 3, 3, 3) of",
    ),
    "two tensors of one name": (
        write(corrupted(lambda state: state.update({f"module._orig_mod.{STEM[7:]}": state[STEM] + 1}))),
        "which differ and both stand for down_tr64.ops.0.conv1.weight",
    ),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of its own with a config whose downstream network starts from weights.pt."""
    monkeypatch.chdir(tmp_path)

    def configure(**changes):
        config = copy.deepcopy(CONFIG)
        config["network"]["base_features"] = 8
        del config["upstream"]["self_supervised"]  # for networks on the shared backbone only
        start = {"name": "genesis", "file": "weights.pt", "format": "models_genesis"} | changes
        config["downstream"] |= {"models": ["clip_driven_original"], "initialisations": [start]}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        return tmp_path

    configure()
    return configure


IMPORT = ["import-weights", "--file", "weights.pt", "--format", "models_genesis", "--model", "clip_driven_original"]
IMPORT += ["--config", "config.yaml"]


@pytest.mark.parametrize("kind", FILES)
def test_a_bad_file_is_named_in_one_line(kind, here, capsys):
    corrupt, words = FILES[kind]
    folder = here()
    corrupt(folder / "weights.pt")
    assert main([*IMPORT, "--out", "out.pt"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("weights.pt: found ") and words in line], lines
    assert all("; expected " in line for line in lines)
    assert {path.name for path in folder.iterdir()} <= {"config.yaml", "weights.pt"}


def test_names_that_are_right_are_not_called_wrong(here, capsys):
    folder = here()
    checkpoint = genesis()
    for tensor in checkpoint["state_dict"].values():
        tensor.zero_()
    torch.save(checkpoint, folder / "weights.pt")
    assert main(IMPORT) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("weights.pt: found one logit for every voxel of the probe")


def test_a_wrong_checksum_is_named(here, capsys):
    torch.save(genesis(), here() / "weights.pt")
    assert main([*IMPORT, "--sha256", "0" * 64]) == 2
    assert f"found SHA-256 {sha256_of('weights.pt')}; expected {'0' * 64}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "model_genesis"], "did you mean 'models_genesis'?"),
        (["--model", "swin_unetr"], "found swin_unetr; expected one of: clip_driven_original, models_genesis"),
        (["--model", "empty"], "a control has no weights"),
        (["--channels", "0"], "expected at least 1"),
        (["--channels", "2"], "a task it supports"),
        (["--out", "out.safetensors"], "--out: found out.safetensors; expected a name for a file of torch.save"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments, words, here, capsys):
    torch.save(genesis(), here() / "weights.pt")
    assert main([*IMPORT, *arguments]) == 2
    assert words in capsys.readouterr().err


def test_what_an_import_prints_can_be_pinned_and_what_it_writes_started_from(here, capsys):
    folder = here()
    torch.save(genesis(), folder / "weights.pt")
    assert main([*IMPORT, "--out", "out.pt"]) == 0
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("- {")]
    pinned = yaml.safe_load(line)[0]
    assert "62 tensors matched, 0 resized, 13 missing, " in printed
    here(**{key: pinned[key] for key in ("sha256", "probe")})
    assert main(["check", "--config", "config.yaml"]) == 0
    assert "genesis for phantom_schwannoma: " in capsys.readouterr().out
    here(file="out.pt", format="imported", probe=pinned["probe"])
    assert main(["check", "--config", "config.yaml"]) == 0


@pytest.mark.parametrize("kind", ["missing", "truncated", "executes code", "a reshaped tensor"])
def test_check_finds_a_bad_file_before_any_training(kind, here, capsys):
    corrupt, words = FILES[kind]
    folder = here()
    corrupt(folder / "weights.pt")
    assert main(["check", "--config", "config.yaml"]) == 2
    assert words in capsys.readouterr().err
    assert {path.name for path in folder.iterdir()} <= {"config.yaml", "weights.pt"}


def test_check_finds_another_probe(here, capsys):
    torch.save(genesis(), here(probe=[0.0, 1.0, -1.0, 1.0]) / "weights.pt")
    assert main(["check", "--config", "config.yaml"]) == 2
    assert "expected [0.0, 1.0, -1.0, 1.0] (mean, standard deviation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "suprem_segresnet"}, "expected one of: segresnet_plain; give the weights"),
        ({"format": "uniseg_official"}, "expected one of: a network on the shared backbone"),
        ({"format": "models_genesi"}, "did you mean 'models_genesis'?"),
        ({"name": "uniseg", "file": None}, "a file beside format"),
        ({"axes": "zyx"}, "found zyx for models_genesis; expected xyz, which its weights were trained on"),
        ({"axes": "abc"}, "axes"),
        ({"trained_on": {"btvc": "all"}}, "found 'btvc'; expected a data set with a card; did you mean 'btcv'?"),
        ({"trained_on": {"btcv": "some"}}, "trained_on"),
    ],
)
def test_a_format_that_does_not_fit_is_refused_with_the_config(changes, words, here, capsys):
    here(**changes)
    assert main(["check", "--config", "config.yaml"]) == 2
    assert words in capsys.readouterr().err


def test_in_a_job_a_bad_file_is_a_failed_outcome_with_the_problem_as_reason(here):
    folder = here()
    FILES["a missing tensor"][0](folder / "weights.pt")
    job = "downstream.clip_driven_original.genesis.phantom_schwannoma.f0.s0"
    context = JobContext.of(folder / "config.yaml", job)
    write_json(context.paths.splits, splits_content({"0": {"phantom_schwannoma": {"train": ["a"], "test": ["b"]}}}))
    index = PreprocessedIndex("phantom_schwannoma", "phantom_mr", {"a": Path("store/a-1")})
    index.write(context.paths.preprocessed("phantom_schwannoma"))

    def run():
        context = JobContext.of(folder / "config.yaml", job)
        work = lambda: {"match": initialise(context, new_model(context))}  # noqa: E731
        run_job(context, "train", context.train_folder, context.identity, products=[], resumable=[], work=work)
        return json.loads((context.train_folder / "outcome.json").read_text())

    outcome = run()
    assert outcome["status"] == "failed"
    assert outcome["reason"].startswith("InputError: weights.pt: found no down_tr64.ops.0.conv1.weight; expected")
    torch.save(genesis(), folder / "weights.pt")
    match = run()["match"]
    assert (match["source"], match["format"]) == ("weights.pt", "models_genesis")
    assert match["sha256"] == sha256_of(folder / "weights.pt")
