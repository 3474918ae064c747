"""Card of Vestibular-Schwannoma-SEG, contrast-enhanced T1, as NIfTI from the authors' conversion script."""

from __future__ import annotations

from pathlib import Path

from segbench.core.case import CaseFiles
from segbench.core.errors import fault

CARD = {
    "title": "Vestibular schwannoma",
    "layout": "custom",
    "folder": "Vestibular-Schwannoma-SEG",
    "channels": [{"name": "T1", "modality": "MR"}],
    "classes": {"1": "vestibular schwannoma"},
    "structures": [{"name": "vestibular schwannoma", "labels": [1], "tolerance_mm": 1.0, "lesion": True}],
    "recipe": "default",
    "expected_cases": {"total": 242},
    "patient_namespace": "vs_seg",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC BY 4.0",
    "permits": {"redistribute": True, "commercial": True, "show_images": True},
    "citation": "Shapey et al., Segmentation of vestibular schwannoma from MRI, an open annotated dataset and "
    "baseline algorithm, Scientific Data 8, 2021",
    "url": "https://doi.org/10.7937/TCIA.9YTJ-5Q73",
    "obtain": "download Vestibular-Schwannoma-SEG from The Cancer Imaging Archive and convert it to NIfTI with "
    "the authors' script (vs_gk_N/vs_gk_t1_refT1.nii.gz)",
}


def discover(root: Path, card: dict) -> list[CaseFiles]:
    """Return vs_gk_N/vs_gk_t1_refT1.nii.gz with vs_gk_seg_refT1.nii.gz."""
    labels = sorted(root.glob("vs_gk_*/vs_gk_seg_refT1.nii.gz"), key=lambda path: int(path.parent.name.split("_")[2]))
    if not labels:
        raise fault(root, found="no vs_gk_N/vs_gk_seg_refT1.nii.gz", expected=card["title"], mend=card["obtain"])
    return [
        CaseFiles(path.parent.name, path.parent.name, (path.with_name("vs_gk_t1_refT1.nii.gz"),), path)
        for path in labels
    ]
