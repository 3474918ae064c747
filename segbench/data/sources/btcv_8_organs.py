"""Card of BTCV with the eight organs of the 18/12 protocol; the other organs count as background."""

from segbench.data.sources.btcv import discover  # the same files

__all__ = ["CARD", "discover"]

CARD = {
    "title": "Abdomen, 8 organs (BTCV)",
    "layout": "custom",
    "folder": "BTCV",
    "channels": [{"name": "CT", "modality": "CT"}],
    "classes": {
        "1": "spleen",
        "2": "right kidney",
        "3": "left kidney",
        "4": "gallbladder",
        "5": "liver",
        "6": "stomach",
        "7": "aorta",
        "8": "pancreas",
    },
    "merge": {1: 1, 2: 2, 3: 3, 4: 4, 5: 0, 6: 5, 7: 6, 8: 7, 9: 0, 10: 0, 11: 8, 12: 0, 13: 0},
    "structures": [
        {"name": "spleen", "labels": [1], "tolerance_mm": 3.0, "lesion": False},
        {"name": "right kidney", "labels": [2], "tolerance_mm": 3.0, "lesion": False},
        {"name": "left kidney", "labels": [3], "tolerance_mm": 3.0, "lesion": False},
        {"name": "gallbladder", "labels": [4], "tolerance_mm": 3.0, "lesion": False},
        {"name": "liver", "labels": [5], "tolerance_mm": 3.0, "lesion": False},
        {"name": "stomach", "labels": [6], "tolerance_mm": 3.0, "lesion": False},
        {"name": "aorta", "labels": [7], "tolerance_mm": 3.0, "lesion": False},
        {"name": "pancreas", "labels": [8], "tolerance_mm": 3.0, "lesion": False},
    ],
    "sides": [["right kidney", "left kidney"]],
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
