"""Card of Task10_Colon of the Medical Segmentation Decathlon."""

CARD = {
    "title": "Colon tumour (MSD)",
    "layout": "msd",
    "folder": "Task10_Colon",
    "channels": [{"name": "CT", "modality": "CT"}],
    "classes": {"1": "colon tumour"},
    "structures": [{"name": "colon tumour", "labels": [1], "tolerance_mm": 3.0, "lesion": True}],
    "tumours": {"1": None},
    "preprocessing": "ct",
    "expected_cases": {"total": 126},
    "patient_namespace": "msd_colon",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC-BY-SA 4.0",
    "permits": {"commercial": True, "show_images": True},
    "citation": "Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13, 2022; Simpson "
    "et al., arXiv:1902.09063",
    "url": "http://medicaldecathlon.com",
    "obtain": "python -m segbench fetch msd_colon, or download Task10_Colon.tar from medicaldecathlon.com and "
    "unpack it",
    "downloads": [
        {
            "url": "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task10_Colon.tar",
            "unpacks_to": "Task10_Colon",
            "checksum": "md5:bad7a188931dc2f6acf72b08eb6202d0",
        },
    ],
}
