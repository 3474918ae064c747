"""Files that cannot be trusted are refused; a wrapped checkpoint is unwrapped; loading is all or nothing."""

import argparse
import io
import pathlib
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.weights.reading import load_strictly, read_state_dict
from segbench.core.errors import InputError


class Trap:
    """Pickles as a call, which an unsafe loader would make."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_malicious_file_is_refused_and_not_run(tmp_path):
    for number, save in enumerate((torch.save, lambda content, path: path.write_bytes(pickle.dumps(content)))):
        path, victim = tmp_path / f"trap{number}.pt", tmp_path / f"victim{number}"
        save({"weight": Trap(victim)}, path)
        with pytest.raises(InputError, match="does not load safely"):
            read_state_dict(path)
        assert not victim.exists()


def test_truncated_absent_and_foreign_files_are_refused(tmp_path):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:1500])
    (tmp_path / "text.pt").write_text("not weights")
    for name in ("half.pt", "text.pt", "absent.pt"):
        with pytest.raises(InputError, match="does not load safely"):
            read_state_dict(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "found list"),
        ({}, "empty"),
        ({"a": 3}, "a: int"),
        ({"a": torch.tensor([1.0, float("inf")])}, "finite numbers"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InputError, match=message):
        read_state_dict(tmp_path / "a.pt")


def test_a_wrapper_may_lie_in_another(tmp_path):
    weights = {"module.a": torch.ones(2)}
    for number, content in enumerate(({"model": {"state_dict": weights}}, {"ema": {"net": {"model": weights}}})):
        torch.save(content, tmp_path / f"{number}.pt")
        assert list(read_state_dict(tmp_path / f"{number}.pt")) == ["a"]


def test_checkpoints_of_other_trainers_are_unwrapped(tmp_path):
    """nnU-Net v1 stores numpy numbers beside the weights; data-parallel training adds a prefix."""
    weight = torch.arange(3.0)
    content = {"epoch": 2, "plot_stuff": [np.float64(0.5), np.float32(0.1)], "state_dict": {"module.a": weight}}
    torch.save(content, tmp_path / "a.pt")
    assert torch.equal(read_state_dict(tmp_path / "a.pt")["a"], weight)


def test_self_distillation_keeps_the_teacher_beside_its_settings(tmp_path):
    """DINO and what is built on it, DeSD among them, store the parsed arguments in the checkpoint."""
    content = {"student": {"a": torch.zeros(3)}, "teacher": {"a": torch.ones(3)}, "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "a.pt")
    assert torch.equal(read_state_dict(tmp_path / "a.pt")["a"], torch.ones(3))


WEIGHTS = OrderedDict(nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2)).state_dict())
LIGHTNING = {"pytorch-lightning_version": "2.4", "epoch": 3, "callbacks": {}, "optimizer_states": [{"step": 1}]}


def named(*prefixes: str) -> dict[str, torch.Tensor]:
    """Return the weights with what others put before their names, the last one innermost."""
    return OrderedDict(("".join(prefixes) + name, tensor) for name, tensor in WEIGHTS.items())


@pytest.mark.parametrize(
    "content",
    [
        named("module."),
        named("_orig_mod."),
        named("module.", "_orig_mod."),
        named("_orig_mod.", "module."),
        named("_fsdp_wrapped_module."),
        OrderedDict(
            (name.replace("0.", "0._orig_mod.").replace("1.", "1._orig_mod."), t) for name, t in WEIGHTS.items()
        ),
        {"state_dict": named("module."), "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}},
        {"model_state_dict": WEIGHTS, "optimizer_state_dict": {}},
        {"state_dict": {"model": WEIGHTS}},
        {"network_weights": named("_orig_mod."), "grad_scaler_state": None, "init_args": {"fold": 0}},
        {"ema_model": WEIGHTS, "step": 3},
        {"state_dict": WEIGHTS, "state_dict_ema": {name: tensor + 1 for name, tensor in WEIGHTS.items()}},
        LIGHTNING | {"state_dict": named("model.")},
        LIGHTNING | {"state_dict": named("net.", "module.")},
        LIGHTNING | {"state_dict": named("model.", "_orig_mod.")},
        LIGHTNING | {"state_dict": named("model.") | {"loss.weight": torch.ones(2), "train_dice.sum": torch.ones(1)}},
        named("module.") | {"n_averaged": torch.tensor(5)},
        {"ema": named("module.") | {"n_averaged": torch.tensor(5)}},
        LIGHTNING | {"state_dict": named("model.") | {"dice_loss.weight": torch.ones(2)}},
        LIGHTNING | {"state_dict": named("model.") | {"class_weights": torch.ones(2)}},
        LIGHTNING | {"state_dict": named("_forward_module.", "model.")},
        {name: tensor.numpy() for name, tensor in WEIGHTS.items()},
        OrderedDict(nn.ParameterDict({})) | {name: nn.Parameter(t, requires_grad=False) for name, t in WEIGHTS.items()},
    ],
)
@pytest.mark.parametrize("as_zip", [True, False])
def test_weights_are_found_whatever_the_trainer(content, as_zip, tmp_path):
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=as_zip)
    found = read_state_dict(tmp_path / "a.pt")
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in WEIGHTS.items())


def test_a_lightning_module_that_is_the_network_keeps_its_names(tmp_path):
    state = {"encoder.a": torch.ones(1), "decoder.b": torch.ones(1)}
    torch.save(LIGHTNING | {"state_dict": state}, tmp_path / "a.pt")
    assert read_state_dict(tmp_path / "a.pt").keys() == state.keys()


def test_names_below_model_stay_where_no_lightning_wrote_them(tmp_path):
    torch.save(named("model."), tmp_path / "a.pt")
    assert read_state_dict(tmp_path / "a.pt").keys() == named("model.").keys()


BESIDE = [
    *(np.dtype(code).type(1) for code in "?bhiqBHIQefdFD"),
    np.str_("a"),
    np.arange(3),
    np.ones((2, 2), np.float32),
    np.array(["a", "b"]),
    np.zeros((0, 3)),
    np.random.RandomState(1).get_state(),
    pathlib.PosixPath("a/b"),
    argparse.Namespace(lr=0.1),
    torch.device("cpu"),
    torch.float16,
    {1, 2},
]


@pytest.mark.parametrize("core", ["_core", "core"])
@pytest.mark.parametrize("item", BESIDE, ids=lambda item: type(item).__name__)
def test_numbers_and_settings_of_numpy_1_and_2_may_stand_beside(item, core, tmp_path):
    torch.save({"network_weights": WEIGHTS, "logging": [item]}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as written, zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        for name in written.namelist():
            archive.writestr(name, written.read(name).replace(b"numpy._core.", f"numpy.{core}.".encode()))
    assert read_state_dict(tmp_path / "b.pt").keys() == WEIGHTS.keys()


def test_safetensors_are_read(tmp_path):
    save_file(dict(WEIGHTS), tmp_path / "a.safetensors")
    assert read_state_dict(tmp_path / "a.safetensors").keys() == WEIGHTS.keys()
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:60])
    with pytest.raises(InputError, match="does not load safely"):
        read_state_dict(tmp_path / "b.safetensors")
    save_file(dict(WEIGHTS), tmp_path / "c.SAFETENSORS")
    assert read_state_dict(tmp_path / "c.SAFETENSORS").keys() == WEIGHTS.keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_precision_is_kept(dtype, tmp_path):
    torch.save({"a": torch.ones(3, dtype=dtype)}, tmp_path / "a.pt")
    assert read_state_dict(tmp_path / "a.pt")["a"].dtype == dtype


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: {"a": torch.eye(3).to_sparse()}, "a, a tensor that is sparse"),
        (lambda: {"a": torch.eye(3).to_sparse_csr()}, "a, a tensor that is sparse"),
        (lambda: {"a": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, "a, a tensor that is quantised"),
        (lambda: {"a": torch.empty(3, device="meta")}, "a, a tensor that is without values"),
        (lambda: {"a": torch.ones(2, dtype=torch.complex64)}, "a, a tensor that is complex"),
        (lambda: {"encoder": WEIGHTS, "decoder": WEIGHTS}, "dictionaries of tensors under 'encoder', 'decoder'"),
        (lambda: {"generator": WEIGHTS, "epoch": 3}, r"torch.save\(checkpoint\['generator'\], path\)"),
        (lambda: nn.Linear(1, 1), "it asks for torch.nn.modules.linear.Linear"),
        (lambda: {"state_dict": WEIGHTS, "hook": io.BytesIO(b"a")}, "it asks for _io.BytesIO"),
        (lambda: {"a": np.array([{}, None], dtype=object)}, "does not load safely"),
    ],
)
def test_the_problem_says_what_is_in_the_file(content, words, tmp_path):
    torch.save(content(), tmp_path / "a.pt")
    with pytest.raises(InputError, match=words):
        read_state_dict(tmp_path / "a.pt")


def test_weights_of_8_bits_with_nan_are_refused(tmp_path):
    torch.save({"a": torch.tensor([1.0, float("nan")]).to(torch.float8_e4m3fn)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="a with nan or inf"):
        read_state_dict(tmp_path / "a.pt")


def test_bytes_of_a_size_are_not_made(tmp_path):
    """An empty array asks for `bytes()`; `bytes(10 ** 12)` would fill the memory."""

    class Huge:
        def __reduce__(self):
            return bytes, (10**12,)

    torch.save({"state_dict": WEIGHTS, "log": Huge()}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="does not load safely"):
        read_state_dict(tmp_path / "a.pt")


@pytest.mark.parametrize("protocol", [4, 5])
def test_another_pickle_protocol_is_named(protocol, tmp_path):
    torch.save({"hook": {1: WEIGHTS}, "set": frozenset()}, tmp_path / "a.pt", pickle_protocol=protocol)
    (tmp_path / "b.pkl").write_bytes(pickle.dumps([1.5], protocol=protocol))
    found = []
    for name in ("a.pt", "b.pkl"):
        with pytest.raises(InputError) as caught:
            read_state_dict(tmp_path / name)
        found.append(str(caught.value))
    assert all(f"pickle protocol {protocol}" in text and "pickle_protocol=2" in text for text in found)


def test_a_packed_file_and_an_object_are_named(tmp_path):
    (tmp_path / "a.pt.gz").write_bytes(b"\x1f\x8babc")
    torch.save({"state_dict": WEIGHTS, "log": np.array(["a", {}], dtype=object)}, tmp_path / "b.pt")
    with pytest.raises(InputError, match="a file that gzip packed"):
        read_state_dict(tmp_path / "a.pt.gz")
    with pytest.raises(InputError, match=r"it holds numpy\.dtypes\.ObjectDType"):
        read_state_dict(tmp_path / "b.pt")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "a pointer of Git LFS"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"", "an empty file"),
        (b"PK\x03\x04 cut", "damaged, or of another program"),
    ],
)
def test_what_came_instead_of_the_file_is_named_without_words_of_python(content, words, tmp_path):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_state_dict(tmp_path / "a.pt")
    assert "Error" not in str(caught.value)


def test_a_bundle_and_a_list_of_parts_are_named(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pt").write_bytes(b"")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match=r"name .*models/model.pt"):
        read_state_dict(tmp_path)
    with pytest.raises(InputError, match="a list of several files"):
        read_state_dict(tmp_path / "model.safetensors.index.json")


def test_every_problem_is_named_and_nothing_is_loaded():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = [parameter.clone() for parameter in model.parameters()]
    state = {
        "0.weight": torch.zeros(3, 2),
        "0.bias": torch.zeros(4),
        "1.bias": torch.zeros(1),
        "2.bias": torch.zeros(1),
    }
    with pytest.raises(InputError) as caught:
        load_strictly(model, state, "a.pt")
    found = [problem.found for problem in caught.value.problems]
    assert found == ["tensor 0.bias of shape (4,)", "no tensor 1.weight", "unexpected tensor 2.bias"]
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_names_of_another_layout():
    model = nn.Linear(1, 1)
    load_strictly(model, {"w": torch.ones(1, 1), "b": torch.ones(1)}, "a.pt", names={"weight": "w", "bias": "b"})
    assert model.weight.item() == model.bias.item() == 1
    with pytest.raises(InputError, match="no tensor w"):
        load_strictly(model, {"b": torch.ones(1)}, "a.pt", names={"weight": "w", "bias": "b"})
