"""nnU-Net's side of `benchmarks.train_step_gpu`: its trainer's own step, loss and optimiser on its own network."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, "/tmp")  # only silences a warning; no such folder is used
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402
from dynamic_network_architectures.architectures.unet import PlainConvUNet  # noqa: E402
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: E402
from torch import nn  # noqa: E402

from benchmarks.turns import timed_steps  # noqa: E402


def main(path: str) -> None:
    """Take the steps of the job and print seconds as JSON."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    torch.backends.cudnn.benchmark = True  # as nnU-Net's entry point sets it
    device = torch.device("cuda")
    network = PlainConvUNet(
        **job["architecture"], conv_op=nn.Conv3d, norm_op=nn.InstanceNorm3d, nonlin=nn.LeakyReLU, deep_supervision=True
    )
    network.apply(network.initialize)
    network = torch.compile(network.to(device))
    pools = [[1, 1, 1], *job["architecture"]["strides"][1:]]
    trainer = SimpleNamespace(
        device=device,
        network=network,
        grad_scaler=torch.amp.GradScaler("cuda"),
        initial_lr=0.01,
        weight_decay=3e-5,
        num_epochs=1000,
        is_ddp=False,
        enable_deep_supervision=True,
        label_manager=SimpleNamespace(has_regions=False, ignore_label=None),
        configuration_manager=SimpleNamespace(batch_dice=False, pool_op_kernel_sizes=pools),
        _do_i_compile=lambda: True,
    )
    trainer._get_deep_supervision_scales = lambda: nnUNetTrainer._get_deep_supervision_scales(trainer)
    trainer.loss = nnUNetTrainer._build_loss(trainer)
    trainer.optimizer, _ = nnUNetTrainer.configure_optimizers(trainer)
    scales = trainer._get_deep_supervision_scales()
    shape = (job["batch_size"], *job["patch_size_zyx"])
    images = torch.randn(shape[0], 1, *shape[1:]).pin_memory()
    labels = torch.randint(0, job["classes"], (shape[0], 1, *shape[1:]))
    target = [nn.functional.interpolate(labels.float(), scale_factor=scale).to(torch.int16) for scale in scales]
    batch = {"data": images, "target": [level.pin_memory() for level in target]}
    print(json.dumps(timed_steps(lambda number: nnUNetTrainer.train_step(trainer, batch)["loss"].item(), job)))


if __name__ == "__main__":
    main(sys.argv[1])
