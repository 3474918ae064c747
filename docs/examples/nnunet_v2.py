"""nnU-Net v2 as an external model; runs in nnU-Net's environment (docs/external_baselines.md).

python nnunet_v2.py train JOB.json PLAN.json    plan, preprocess and train on the job's training cases
python nnunet_v2.py predict JOB.json            write OUTPUT/TASK/CASE.nii.gz for its test cases
python nnunet_v2.py folds TASK=FOLDER ...       print the lists of nnU-Net's fold 0 of 5 for labelsTr folders

PLAN.json replaces parts of nnU-Net's own plan, so that training fits two processor cores and equals the plan of the
models beside it: `spacing` (mm) and `patch_size` in z, y, x, `features_per_stage`, and `epochs` of 250 steps. It may
replace `batch_dice`, `initial_lr`, `momentum` and `mirror_axes` (in training and prediction; z, y, x = 0, 1, 2) too,
which are then no longer nnU-Net's. Cases are prepared by `nnUNet_def_n_proc` processes.
"""

import json
import os
import shutil
import sys
from pathlib import Path

DATASET = "Dataset900_segbench"
CONFIGURATION = "3d_fullres"


def link_case(case: dict, folder: Path) -> None:
    """Put one file per channel where nnU-Net looks for it; this example takes 3D NIfTI files as they are."""
    for channel, path in enumerate(case["images"]):
        (folder / f"{case['case']}_{channel:04d}.nii.gz").symlink_to(path)


def write_raw(job: dict, raw: Path) -> None:
    """Write nnU-Net's raw folder from the job; it has one task, because nnU-Net trains one network per task."""
    (task,) = job["tasks"]
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True)
    for case in task["training"]:
        link_case(case, raw / "imagesTr")
        (raw / "labelsTr" / f"{case['case']}.nii.gz").symlink_to(case["label"])
    content = {
        "channel_names": {str(number): channel["modality"] for number, channel in enumerate(task["channels"])},
        "labels": {"background": 0} | {name: int(value) for value, name in task["classes"].items()},
        "numTraining": len(task["training"]),
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "NibabelIO",
    }
    (raw / "dataset.json").write_text(json.dumps(content))


def replace_plan(path: Path, wanted: dict) -> None:
    """Write spacing, patch, batch of 2 and widths into the plan; each stage after the first halves every axis.

    Axes stay in the order z, y, x; nnU-Net's own plan puts the axis with the largest spacing first.
    """
    plans = json.loads(path.read_text())
    plans |= {"transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2]}
    plan = plans["configurations"][CONFIGURATION]
    stages = len(wanted["features_per_stage"])
    plan |= {"spacing": wanted["spacing"], "patch_size": wanted["patch_size"], "batch_size": 2}
    plan["batch_dice"] = wanted.get("batch_dice", plan["batch_dice"])
    plan["architecture"]["arch_kwargs"] |= {
        "n_stages": stages,
        "features_per_stage": wanted["features_per_stage"],
        "kernel_sizes": [[3, 3, 3]] * stages,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
    }
    path.write_text(json.dumps(plans, indent=2))


def mirror(trainer: object, axes: tuple[int, ...]) -> None:
    """Let a trainer mirror along these axes alone; its checkpoint tells prediction."""
    nnunet_choice = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size

    def choice() -> tuple:
        rotation, dummy_2d, patch_size, _ = nnunet_choice()
        trainer.inference_allowed_mirroring_axes = axes
        return rotation, dummy_2d, patch_size, axes

    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size = choice


def device():
    """Return the GPU when there is one, else the processor."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(job: dict, root: Path, plan: dict) -> None:
    """Plan, preprocess and train on all cases that the job gives: nnU-Net's fold 'all'."""
    import torch
    from nnunetv2.configuration import default_num_processes
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )
    from nnunetv2.run.run_training import get_trainer_from_args

    shutil.rmtree(root, ignore_errors=True)
    write_raw(job, root / "raw" / DATASET)
    extract_fingerprints([900], num_processes=default_num_processes)
    plan_experiments([900])
    replace_plan(root / "preprocessed" / DATASET / "nnUNetPlans.json", plan)
    preprocess([900], configurations=(CONFIGURATION,), num_processes=(default_num_processes,))
    torch.manual_seed(job["seed"])
    trainer = get_trainer_from_args(DATASET, CONFIGURATION, "all", device=device())
    trainer.num_epochs = plan["epochs"]
    trainer.initial_lr = plan.get("initial_lr", trainer.initial_lr)
    if "mirror_axes" in plan:
        mirror(trainer, tuple(plan["mirror_axes"]))
    trainer.initialize()
    for group in trainer.optimizer.param_groups:
        group["momentum"] = plan.get("momentum", group["momentum"])
    trainer.num_val_iterations_per_epoch = 1  # only a value for its log; training does not depend on it
    trainer.run_training()


def predict(job: dict, root: Path) -> None:
    """Predict the test cases with nnU-Net's defaults: half-patch steps, mirroring over the axes of training."""
    from nnunetv2.configuration import default_num_processes
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    (task,) = job["tasks"]
    images = root / "imagesTs"
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir()
    for case in task["test"]:
        link_case(case, images)
    folder = root / "results" / DATASET / f"nnUNetTrainer__nnUNetPlans__{CONFIGURATION}"
    on_gpu = device().type == "cuda"
    predictor = nnUNetPredictor(device=device(), perform_everything_on_device=on_gpu, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), ("all",), "checkpoint_final.pth")
    target = root / "predicted"
    predictor.predict_from_files(
        str(images),
        str(target),
        num_processes_preprocessing=default_num_processes,
        num_processes_segmentation_export=default_num_processes,
    )
    for case in task["test"]:
        shutil.copy(target / f"{case['case']}.nii.gz", Path(job["output"]) / task["name"])


def folds(folder: Path) -> dict:
    """Return the lists of the first of the five folds that nnU-Net makes by itself."""
    from sklearn.model_selection import KFold

    cases = sorted(path.name.removesuffix(".nii.gz") for path in folder.glob("*.nii.gz"))
    train, test = next(iter(KFold(5, shuffle=True, random_state=12345).split(cases)))
    return {"train": [cases[number] for number in train], "test": [cases[number] for number in test]}


def main() -> None:
    """Read the arguments; nnU-Net finds its folders by these variables when it is imported."""
    step, *arguments = sys.argv[1:]
    if step == "folds":
        print(json.dumps({task: folds(Path(folder)) for task, folder in (text.split("=", 1) for text in arguments)}))
        return
    job = json.loads(Path(arguments[0]).read_text())
    root = Path(job["work"]) / "nnunet"
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(root / name)
    if step == "train":
        train(job, root, json.loads(Path(arguments[1]).read_text()))
    else:
        predict(job, root)


if __name__ == "__main__":
    main()
