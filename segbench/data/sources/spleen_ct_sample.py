"""Card of the data set Spleen CT (MSD sample)."""

CARD = {
    "title": "Spleen CT (MSD sample)",
    "layout": "msd",
    "folder": "Spleen_CT_sample",
    "channels": [{"name": "CT", "modality": "CT"}],
    "classes": {"1": "spleen"},
    "structures": [{"name": "spleen", "labels": [1], "tolerance_mm": 3.0, "lesion": False}],
    "preprocessing": "default",
    "expected_cases": {"total": 1},
    "patient_namespace": "msd_spleen",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC-BY-SA 4.0",
    "permits": {"commercial": True, "show_images": True},
    "citation": "A. L. Simpson et al., arXiv:1902.09063 (Memorial Sloan Kettering Cancer Center)",
    "url": "https://github.com/ivadomed/data-testing",
    "obtain": "copy https://github.com/ivadomed/data-testing (ct_scan) at commit 794a30751752 into a folder "
    "Spleen_CT_sample in Medical Segmentation Decathlon layout",
}
