"""Card of LiTS, read as distributed by the challenge or as Task03_Liver of the Decathlon."""

from __future__ import annotations

from pathlib import Path

from segbench.core.case import CaseFiles
from segbench.core.errors import fault
from segbench.data.layouts import msd

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
    "recipe": "ct",
    "expected_cases": {"total": 131},
    "patient_namespace": "lits",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC BY-NC-SA 4.0",
    "permits": {"redistribute": True, "commercial": False, "show_images": True},
    "citation": "Bilic et al., The Liver Tumor Segmentation Benchmark (LiTS), Medical Image Analysis 84, 2023",
    "url": "https://competitions.codalab.org/competitions/17094",
    "obtain": "download the LiTS training batches (volume-N.nii, segmentation-N.nii) or Task03_Liver.tar of the "
    "Medical Segmentation Decathlon into the folder LiTS",
}


def discover(root: Path, card: dict) -> list[CaseFiles]:
    """Return volume-N.nii with segmentation-N.nii from any subfolder, or the Decathlon's own listing."""
    if (root / "dataset.json").exists():
        return msd(root, card)
    volumes = sorted(root.rglob("volume-*.nii*"), key=lambda path: int(_number(path)))
    if not volumes:
        raise fault(root, found="no volume-N.nii", expected=card["title"], mend=card["obtain"])
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
