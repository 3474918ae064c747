"""Card of BTCV with its 13 organs."""

from __future__ import annotations

from pathlib import Path

from segbench.core.case import CaseFiles
from segbench.core.errors import input_error
from segbench.data.layouts import find

CARD = {
    "title": "Abdomen, 13 organs (BTCV)",
    "layout": "custom",
    "folder": "BTCV",
    "channels": [{"name": "CT", "modality": "CT"}],
    "classes": {
        "1": "spleen",
        "2": "right kidney",
        "3": "left kidney",
        "4": "gallbladder",
        "5": "oesophagus",
        "6": "liver",
        "7": "stomach",
        "8": "aorta",
        "9": "inferior vena cava",
        "10": "portal and splenic veins",
        "11": "pancreas",
        "12": "right adrenal gland",
        "13": "left adrenal gland",
    },
    "structures": [
        {"name": "spleen", "labels": [1], "tolerance_mm": 3.0, "lesion": False},
        {"name": "right kidney", "labels": [2], "tolerance_mm": 3.0, "lesion": False},
        {"name": "left kidney", "labels": [3], "tolerance_mm": 3.0, "lesion": False},
        {"name": "gallbladder", "labels": [4], "tolerance_mm": 3.0, "lesion": False},
        {"name": "oesophagus", "labels": [5], "tolerance_mm": 3.0, "lesion": False},
        {"name": "liver", "labels": [6], "tolerance_mm": 3.0, "lesion": False},
        {"name": "stomach", "labels": [7], "tolerance_mm": 3.0, "lesion": False},
        {"name": "aorta", "labels": [8], "tolerance_mm": 3.0, "lesion": False},
        {"name": "inferior vena cava", "labels": [9], "tolerance_mm": 3.0, "lesion": False},
        {"name": "portal and splenic veins", "labels": [10], "tolerance_mm": 3.0, "lesion": False},
        {"name": "pancreas", "labels": [11], "tolerance_mm": 3.0, "lesion": False},
        {"name": "right adrenal gland", "labels": [12], "tolerance_mm": 3.0, "lesion": False},
        {"name": "left adrenal gland", "labels": [13], "tolerance_mm": 3.0, "lesion": False},
    ],
    "sides": [["right kidney", "left kidney"], ["right adrenal gland", "left adrenal gland"]],
    "preprocessing": "ct",
    "expected_cases": {"total": 30},
    "patient_namespace": "btcv",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "by registration at Synapse; research use",
    "permits": {"commercial": False, "show_images": False},
    "citation": "Landman et al., Multi-Atlas Labeling Beyond the Cranial Vault, MICCAI challenge 2015",
    "url": "https://www.synapse.org/Synapse:syn3193805",
    "obtain": "register at Synapse, download Abdomen/RawData.zip and unpack it into the folder BTCV",
}


def discover(root: Path, card: dict) -> list[CaseFiles]:
    """Return RawData/Training/img/imgNNNN.nii.gz with label/labelNNNN.nii.gz."""
    images = find(root, "RawData/Training/img/img*.nii.gz")
    if not images:
        raise input_error(root / "RawData", found="no Training/img", expected=card["title"], fix=card["obtain"])
    return [
        CaseFiles(
            path.name.removesuffix(".nii.gz"),
            path.name.removesuffix(".nii.gz"),
            (path,),
            path.parents[1] / "label" / path.name.replace("img", "label"),
        )
        for path in images
    ]
