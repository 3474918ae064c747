"""Card of LiTS, read as distributed by the challenge or as Task03_Liver of the Decathlon.

Prefer the Decathlon's edition. Labels of the challenge's edition are reported to have headers without geometry (nnU-Net
issue 2751), which the check refuses. Cases 28 to 47 come from 3D-IRCADb and are reported to state a spacing of 1 mm,
not the true one (AbdomenCT-1K issue 27), so that their distances in mm mislead.
"""

from __future__ import annotations

from pathlib import Path

from segbench.core.case import CaseFiles
from segbench.core.errors import input_error
from segbench.data.layouts import find, msd

CARD = {
    "title": "Liver (LiTS)",
    "layout": "custom",
    "folder": "LiTS",
    "channels": [{"name": "CT", "modality": "CT"}],
    "classes": {"1": "liver", "2": "liver tumour"},
    "structures": [
        {"name": "liver", "labels": [1], "tolerance_mm": 3.0, "lesion": False},
        {"name": "liver tumour", "labels": [2], "tolerance_mm": 3.0, "lesion": True},
    ],
    "tumours": {"2": 1},
    "preprocessing": "ct",
    "expected_cases": {"total": 131},
    "patient_namespace": "lits",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC BY-NC-SA 4.0 (challenge); CC-BY-SA 4.0 (Decathlon)",
    "permits": {"commercial": False, "show_images": True},
    "citation": "Bilic et al., The Liver Tumor Segmentation Benchmark (LiTS), Medical Image Analysis 84, 2023",
    "url": "https://competitions.codalab.org/competitions/17094",
    "obtain": "python -m segbench fetch lits (the Decathlon's Task03_Liver, the same cases), or register at CodaLab "
    "and unpack the LiTS training batches into the folder LiTS",
    "downloads": [
        {
            "url": "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task03_Liver.tar",
            "unpacks_to": "LiTS/Task03_Liver",
            "checksum": "md5:a90ec6c4aa7f6a3d087205e23d4e6397",
        },
    ],
}


def discover(root: Path, card: dict) -> list[CaseFiles]:
    """Return volume-N.nii with segmentation-N.nii from any subfolder, or the Decathlon's own listing."""
    for listing in (root / "dataset.json", root / "Task03_Liver" / "dataset.json"):
        if listing.exists():
            return msd(listing.parent, card)
    volumes = sorted(find(root, "**/volume-*.nii*"), key=lambda path: int(_number(path)))
    if not volumes:
        raise input_error(root, found="no volume-N.nii", expected=card["title"], fix=card["obtain"])
    return [
        CaseFiles(
            f"liver_{_number(path)}",
            f"liver_{_number(path)}",
            (path,),
            path.with_name(path.name.replace("volume-", "segmentation-")),
        )
        for path in volumes
    ]


def _number(path: Path) -> str:
    return path.name.removeprefix("volume-").split(".")[0]
