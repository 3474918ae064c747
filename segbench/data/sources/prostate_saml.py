"""Card of the six-site prostate collection of SAML; zones are merged into the whole prostate."""

from __future__ import annotations

from pathlib import Path

from segbench.core.case import CaseFiles
from segbench.core.errors import input_error
from segbench.data.layouts import find

CARD = {
    "title": "Prostate (six sites)",
    "layout": "custom",
    "folder": "prostate_saml",
    "channels": [{"name": "T2", "modality": "MR"}],
    "classes": {"1": "prostate"},
    "merge": {2: 1},
    "structures": [{"name": "prostate", "labels": [1], "tolerance_mm": 2.0, "lesion": False}],
    "preprocessing": "prostate",
    "expected_cases": {"total": 116},
    "patient_namespace": "prostate_saml",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "as stated by the six sources (NCI-ISBI 2013, I2CVB, PROMISE12)",
    "permits": {"commercial": False, "show_images": True},
    "citation": "Liu et al., Shape-aware Meta-learning for Generalizing Prostate MRI Segmentation to Unseen "
    "Domains, MICCAI 2020",
    "url": "https://liuquande.github.io/SAML/",
    "obtain": "download the multi-site data set from https://liuquande.github.io/SAML/ and unpack its six site "
    "folders (BIDMC, BMC, HK, I2CVB, RUNMC, UCL) into prostate_saml",
}


def discover(root: Path, card: dict) -> list[CaseFiles]:
    """Return SITE/CaseNN.nii.gz with SITE/CaseNN_segmentation.nii.gz; the patient is the site and the number."""
    labels = find(root, "**/*_[sS]egmentation.nii.gz")
    if not labels:
        raise input_error(root, found="no SITE/CaseNN_segmentation.nii.gz", expected=card["title"], fix=card["obtain"])
    cases = []
    for path in labels:
        number = path.name[: path.name.lower().index("_segmentation")]
        case_id = f"{path.parent.name}_{number}"
        cases.append(CaseFiles(case_id, case_id, (path.with_name(f"{number}.nii.gz"),), path))
    return cases
