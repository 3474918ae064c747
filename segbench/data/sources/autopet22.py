"""Card of AutoPET 2022; studies without lesion are kept, and a case is named by patient and study, never by order."""

from __future__ import annotations

from pathlib import Path

from segbench.core.case import CaseFiles
from segbench.core.errors import input_error
from segbench.data.layouts import find

CARD = {
    "title": "Whole-body PET/CT (AutoPET 2022)",
    "layout": "custom",
    "folder": "FDG-PET-CT-Lesions",
    "channels": [{"name": "CT", "modality": "CT"}, {"name": "PET", "modality": "PET"}],
    "classes": {"1": "lesion"},
    "structures": [{"name": "lesion", "labels": [1], "tolerance_mm": 4.0, "lesion": True}],
    "tumours": {"1": None},
    "preprocessing": "autopet",
    "expected_cases": {"total": 1014},
    "patient_namespace": "autopet",
    "patient_pattern": "(PETCT_[0-9a-f]+)",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC BY 4.0 (TCIA, restricted access)",
    "permits": {"commercial": True, "show_images": False},
    "citation": "Gatidis et al., A whole-body FDG-PET/CT dataset with manually annotated tumor lesions, "
    "Scientific Data 9, 2022",
    "url": "https://autopet.grand-challenge.org",
    "obtain": "download the NIfTI edition of FDG-PET-CT-Lesions from fdat.uni-tuebingen.de/records/wf9fy-txq84, or "
    "request the DICOM edition at The Cancer Imaging Archive and convert it with tcia_dicom_to_nifti.py of "
    "github.com/lab-midas/TCIA_processing; keep the folder name FDG-PET-CT-Lesions",
}


def discover(root: Path, card: dict) -> list[CaseFiles]:
    """Return PETCT_PATIENT/STUDY with CTres, SUV and SEG."""
    labels = find(root, "**/PETCT_*/*/SEG.nii.gz")
    if not labels:
        raise input_error(root, found="no PETCT_*/STUDY/SEG.nii.gz", expected=card["title"], fix=card["obtain"])
    return [
        CaseFiles(
            f"{path.parents[1].name}_{path.parent.name}".replace(" ", "-"),
            path.parents[1].name,
            (path.with_name("CTres.nii.gz"), path.with_name("SUV.nii.gz")),
            path,
        )
        for path in labels
    ]
