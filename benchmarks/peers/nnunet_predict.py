"""nnU-Net's side of `benchmarks.predict`: its own predictor on given files with given weights, one after the other."""

import json
import sys
import time

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

RESAMPLING = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
EXPORT = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}


def plans(job):
    """Return plans with the patch and the spacing of the job; resampling functions are the defaults of nnU-Net."""
    name = "resample_data_or_seg_to_shape"
    configuration = {
        "data_identifier": "x",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": job["patch_size_zyx"],
        "spacing": job["spacing_mm_zyx"],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": name,
        "resampling_fn_data_kwargs": RESAMPLING,
        "resampling_fn_seg": name,
        "resampling_fn_seg_kwargs": EXPORT | {"is_seg": True},
        "resampling_fn_probabilities": name,
        "resampling_fn_probabilities_kwargs": EXPORT,
        "batch_dice": False,
        "architecture": {"network_class_name": "", "arch_kwargs": {}, "_kw_requires_import": []},  # given as built
    }
    return PlansManager(
        {
            "dataset_name": "x",
            "plans_name": "x",
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "foreground_intensity_properties_per_channel": {"0": {}},
            "configurations": {"3d_fullres": configuration},
        }
    )


def main(path):
    """Predict all files and print seconds as JSON."""
    with open(path) as stream:
        job = json.load(stream)
    torch.set_num_threads(1)
    network = PlainConvUNet(**job["network"], conv_op=nn.Conv3d, norm_op=nn.InstanceNorm3d, nonlin=nn.LeakyReLU).eval()
    network.load_state_dict(torch.load(job["weights"], weights_only=True))
    network.decoder.deep_supervision = False
    manager = plans(job)
    dataset = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0} | {f"c{number}": number for number in range(1, job["classes"])},
        "file_ending": ".nii.gz",
    }
    predictor = nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=True,
        device=torch.device("cpu"),
        verbose=False,
        allow_tqdm=False,
    )
    predictor.manual_initialization(
        network,
        manager,
        manager.get_configuration("3d_fullres"),
        [network.state_dict()],
        dataset,
        "nnUNetTrainer",
        (0, 1, 2),
    )
    began, cpu = time.perf_counter(), time.process_time()
    predictor.predict_from_files_sequential([[name] for name in job["images"]], job["outputs"], False, True, None)
    print(json.dumps({"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}))


if __name__ == "__main__":
    main(sys.argv[1])
