"""Card of the data set Multiple sclerosis lesions MR."""

CARD = {
    "title": "Multiple sclerosis lesions MR",
    "layout": "msd",
    "folder": "MSLesion_MNI",
    "channels": [
        {"name": "FLAIR", "modality": "MR"},
        {"name": "T1", "modality": "MR"},
        {"name": "T2", "modality": "MR"},
        {"name": "T1gd", "modality": "MR"},
    ],
    "classes": {"1": "lesion"},
    "structures": [{"name": "lesion", "labels": [1], "tolerance_mm": 2.0, "lesion": True}],
    "tumours": {"1": None},
    "preprocessing": "default",
    "expected_cases": {"total": 3},
    "patient_namespace": "ms_lesion_mni",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC BY (version not stated)",
    "permits": {"commercial": True, "show_images": True},
    "citation": "Z. Lesjak, F. Pernus, B. Likar, Z. Spiclin, 'A Novel Public MR Image Dataset of Multiple "
    "Sclerosis Patients With Lesion Segmentations Based on Multi-rater Consensus', Neuroinformatics "
    "2017, doi:10.1007/s12021-017-9348-7",
    "url": "https://github.com/muschellij2/open_ms_data",
    "obtain": "copy https://github.com/muschellij2/open_ms_data (cross_sectional/MNI) at commit 65704901f606 "
    "into a folder MSLesion_MNI in Medical Segmentation Decathlon layout",
}
