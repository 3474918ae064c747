"""Card of Task09_Spleen of the Medical Segmentation Decathlon."""

CARD = {
    "title": "Spleen (MSD)",
    "layout": "msd",
    "folder": "Task09_Spleen",
    "channels": [{"name": "CT", "modality": "CT"}],
    "classes": {"1": "spleen"},
    "structures": [{"name": "spleen", "labels": [1], "tolerance_mm": 3.0, "lesion": False}],
    "preprocessing": "ct",
    "expected_cases": {"total": 41},
    "patient_namespace": "msd_spleen",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC-BY-SA 4.0",
    "permits": {"commercial": True, "show_images": True},
    "citation": "Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13, 2022; Simpson "
    "et al., arXiv:1902.09063",
    "url": "http://medicaldecathlon.com",
    "obtain": "python -m segbench fetch msd_spleen, or download Task09_Spleen.tar from medicaldecathlon.com and "
    "unpack it",
    "downloads": [
        {
            "url": "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task09_Spleen.tar",
            "unpacks_to": "Task09_Spleen",
            "checksum": "md5:410d4a301da4e5b2f6f86ec3ddba524e",
        },
    ],
}
