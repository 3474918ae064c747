"""Benchmarks run by hand: here our side of each still works, on a case that is too small to measure."""

import nibabel as nib
import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from benchmarks import predict, train_step_gpu


def test_our_side_of_prediction(tmp_path):
    options = predict.network_arguments(3)
    network = PlainConvUNet(**options, conv_op=nn.Conv3d, norm_op=nn.InstanceNorm3d, nonlin=nn.LeakyReLU)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    values = np.random.default_rng(0).normal(100, 30, (18, 17, 16)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "image.nii.gz")
    job = {
        "weights": str(tmp_path / "weights.pt"),
        "patch_size_zyx": [16, 16, 16],
        "spacing_mm_zyx": [1.0, 1.0, 1.0],
        "classes": 3,
        "precision": "float32",
        "images": [str(tmp_path / "image.nii.gz")],
        "output": str(tmp_path / "ours"),
    }
    assert predict.predict(job)["seconds"] > 0
    assert nib.load(tmp_path / "ours" / "bench" / "image.nii.gz").shape == values.shape


def test_sides_of_a_step_on_a_gpu(monkeypatch):
    monkeypatch.setenv("NNUNET_PYTHON", "/usr/bin/python3")
    sides = train_step_gpu.sides(3, variants=True)
    assert {"segbench", *train_step_gpu.TARGETS} <= set(sides)
    for _, job in sides.values():
        if "model" in job:
            train_step_gpu.settings(job)
    assert sides["nnunet"][1]["architecture"]["features_per_stage"][-1] == 320
