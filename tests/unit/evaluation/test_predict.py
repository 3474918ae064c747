"""Images of the user: label maps on their own grid, one encoding for tasks preprocessed alike, problems first."""

import copy
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from segbench.cli import main
from segbench.core.files import write_json
from segbench.core.paths import RunPaths
from segbench.evaluation import predict
from segbench.evaluation.predictors.network import trained_network
from segbench.experiment.config import load_config
from segbench.experiment.preprocessed_index import PreprocessedIndex
from segbench.experiment.result_record import ResultRecord
from segbench.training import checkpoint
from segbench.training.loop import new_model
from tests.unit.written_run import splits_content
from tests.workflow.tiny import CONFIG

JOB = "upstream.uniseg.random.joint.f0.s0"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run with an untrained network for two CT tasks and one of CT and PET, and a CT image."""
    content = copy.deepcopy(CONFIG) | {"seeds": [0]}
    content["upstream"]["tasks"] = ["phantom_liver", "phantom_spleen", "phantom_petct"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    config = load_config(tmp_path / "config.yaml")
    context = predict.trained_job(config, JOB)
    sides = {task.name: {"train": ["a"], "test": ["b"]} for task in config.tasks}
    write_json(context.paths.splits, splits_content({"0": sides}))
    for task in config.tasks:
        measured = {"foreground": [None] * task.num_channels, "masked": False}
        folders = {"a": Path("store/a-1"), "b": Path("store/b-2")}
        index = PreprocessedIndex(task.name, task.preprocessing, folders, measured)
        index.write(context.paths.preprocessed(task.name))
    save_weights(context, new_model(context).state_dict())
    write_image(tmp_path / "ct.nii.gz")
    return tmp_path


def save_weights(context, state):
    checkpoint.save(context.train_folder / "weights.pt", state)
    ResultRecord.of(context.train_folder, context.identity, {}, ["weights.pt"]).write(context.train_folder)


def write_image(path, shape=(22, 17, 9), affine=None):
    values = np.random.default_rng(0).integers(-300, 300, size=shape).astype(np.float32)
    affine = np.diag([-1.5, 1.4, 3.0, 1.0]) if affine is None else affine
    nib.save(nib.Nifti1Image(values, affine), path)


def command(*arguments):
    return main(["predict", "--config", "config.yaml", "--output", "out", *arguments])


def test_label_maps_lie_on_the_image_s_grid(folder, capsys):
    assert command("--job", JOB, "--images", "ct.nii.gz", "--tasks", "phantom_spleen", "phantom_liver") == 0
    assert sorted(capsys.readouterr().out.split()) == [f"out/phantom_{task}/ct.nii.gz" for task in ("liver", "spleen")]
    image, found = nib.load("ct.nii.gz"), nib.load("out/phantom_liver/ct.nii.gz")
    assert found.shape == image.shape
    np.testing.assert_allclose(found.affine, image.affine)
    assert 1 < len(np.unique(np.asarray(found.dataobj))) <= 3  # an untrained network calls something


def test_tasks_preprocessed_alike_share_one_encoding(folder, monkeypatch):
    config = load_config(folder / "config.yaml")
    context = predict.trained_job(config, JOB)
    model = trained_network(context, device="cpu")
    encode, count = model.encode, []
    monkeypatch.setattr(model, "encode", lambda images: count.append(1) or encode(images))
    both = predict.asked_tasks(context, ["phantom_liver", "phantom_spleen"])

    def answers(tasks):
        images = predict.preprocessed_images(context, ["ct.nii.gz"], tasks)
        return {task.name: labels for task, labels in predict.predict_image(model, context, images)}

    together = answers(both)
    encodings = len(count)
    for task in both:
        np.testing.assert_array_equal(together[task.name], answers([task])[task.name])
    assert len(count) == 3 * encodings


def test_many_images_go_through_one_pipeline(folder, capsys):
    names = [f"image_{number}" for number in range(5)]
    for number, name in enumerate(names):
        write_image(f"{name}.nii.gz", shape=(20 + number, 17, 9))
    arguments = ["--job", JOB, "--tasks", "phantom_spleen", "--images"]
    assert command(*arguments, *(f"{name}.nii.gz" for name in names)) == 0
    assert capsys.readouterr().out.split() == [f"out/phantom_spleen/{name}.nii.gz" for name in names]
    for number, name in enumerate(names):
        found = nib.load(f"out/phantom_spleen/{name}.nii.gz")
        assert found.shape == (20 + number, 17, 9)
        alone = Path("alone", name)
        assert main(["predict", "--config", "config.yaml", "--output", str(alone), *arguments, f"{name}.nii.gz"]) == 0
        again = nib.load(alone / "phantom_spleen" / f"{name}.nii.gz")
        np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(again.dataobj))


def test_several_channels_are_several_files_or_one(folder):
    write_image("pet.nii.gz")
    parts = [nib.load(name) for name in ("ct.nii.gz", "pet.nii.gz")]
    nib.save(nib.Nifti1Image(np.stack([part.get_fdata() + 350 for part in parts], axis=-1), parts[0].affine), "4d.nii")
    nib.save(nib.Nifti1Image(parts[1].get_fdata() + 350, parts[1].affine), "pet.nii.gz")
    assert command("--job", JOB, "--images", "ct.nii.gz,pet.nii.gz", "4d.nii", "--tasks", "phantom_petct") == 0
    assert sorted(path.name for path in (folder / "out" / "phantom_petct").iterdir()) == ["4d.nii.gz", "ct.nii.gz"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--job", "upstream.uniseg.random.joint.f0.s1", "--images", "ct.nii.gz"], f"did you mean '{JOB}'"),
        (["--job", JOB, "--images", "ct.nii.gz", "--tasks", "phantom_livre"], "did you mean 'phantom_liver'"),
        (["--job", JOB, "--images", "ct.nii.gz"], "expected 2"),
        (["--job", JOB, "--images", "absent.nii.gz", "--tasks", "phantom_liver"], "no file"),
        (["--job", JOB, "--images", "config.yaml", "--tasks", "phantom_liver"], "cannot be read"),
        (["--job", JOB, "--images", "ct.nii.gz", "./ct.nii.gz", "--tasks", "phantom_liver"], "again"),
        (["--job", JOB, "--images", "ct.nii.gz,small.nii.gz", "--tasks", "phantom_petct"], "as ct.nii.gz; resample"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(folder, capsys, arguments, message):
    write_image("small.nii.gz", shape=(5, 5, 5))
    assert command(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_commas_in_names_and_blanks_beside_them_are_understood(folder):
    write_image("ct, late.nii.gz")
    image = nib.load("ct.nii.gz")
    nib.save(nib.Nifti1Image(image.get_fdata() + 350, image.affine), "pet, late.nii.gz")
    images = ["ct, late.nii.gz,pet, late.nii.gz", "ct.nii.gz, pet, late.nii.gz"]
    assert command("--job", JOB, "--images", *images, "--tasks", "phantom_petct") == 0
    written = sorted(path.name for path in (folder / "out" / "phantom_petct").iterdir())
    assert written == ["ct, late.nii.gz", "ct.nii.gz"]


@pytest.mark.parametrize(
    ("there", "output", "message"),
    [
        ("image", "data", "found an image; expected a path for its label map"),
        ("image", "link", "found an image; expected a path for its label map"),
        ("folder", "data", "found a folder; expected a file"),
        ("task", "data", "phantom_liver: found a file; expected a folder"),
        ("output", "data", "data: found a file; expected a folder"),
        ("output", "data/below", "data, which is no folder"),
        ("nothing", "n" * 300, "File name too long"),
    ],
)
def test_no_image_is_replaced_and_an_output_that_cannot_be_written_is_named_at_once(
    there, output, message, folder, capsys
):
    target = Path("data/phantom_liver/ct.nii.gz")
    if there in ("image", "folder", "task"):
        target.parent.parent.mkdir()
    if there == "image":
        target.parent.mkdir()
        write_image(target)
        Path("link").symlink_to("data")
    elif there == "folder":
        target.mkdir(parents=True)
    elif there != "nothing":
        (target.parent if there == "task" else Path("data")).write_text("")
    before = target.read_bytes() if there == "image" else b""
    image = str(target) if there == "image" else "ct.nii.gz"
    assert command("--job", JOB, "--images", image, "--tasks", "phantom_liver", "--output", output) == 2
    assert message in capsys.readouterr().err
    assert not before or target.read_bytes() == before


@pytest.mark.parametrize("corrupt", ["absent", "truncated", "another model", "edited"])
def test_weights_that_do_not_fit_are_refused(folder, capsys, corrupt):
    path = RunPaths("tiny").train(JOB) / "weights.pt"
    if corrupt == "absent":
        path.unlink()
    elif corrupt == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    else:
        state = checkpoint.load_weights(path)
        other = {f"other.{name}": tensor for name, tensor in state.items()}
        if corrupt == "edited":
            checkpoint.save(path, other)
        else:
            save_weights(predict.trained_job(load_config("config.yaml"), JOB), other)
    assert command("--job", JOB, "--images", "ct.nii.gz", "--tasks", "phantom_liver") == 2
    assert str(path) in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_weights_of_other_settings_are_refused_and_the_difference_is_named(folder, capsys):
    content = yaml.safe_load((folder / "config.yaml").read_text())
    content["training"]["iterations_per_task"] += 1
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    assert command("--job", JOB, "--images", "ct.nii.gz", "--tasks", "phantom_liver") == 2
    assert "what differs: training;" in capsys.readouterr().err
    assert not (folder / "out").exists()
