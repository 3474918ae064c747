"""Card of Task08_HepaticVessel of the Medical Segmentation Decathlon."""

CARD = {
    "title": "Hepatic vessel (MSD)",
    "layout": "msd",
    "folder": "Task08_HepaticVessel",
    "channels": [{"name": "CT", "modality": "CT"}],
    "classes": {"1": "hepatic vessel", "2": "hepatic tumour"},
    "structures": [
        {"name": "hepatic vessel", "labels": [1], "tolerance_mm": 3.0, "lesion": False},
        {"name": "hepatic tumour", "labels": [2], "tolerance_mm": 3.0, "lesion": True},
    ],
    "tumours": {"2": None},
    "preprocessing": "ct",
    "expected_cases": {"total": 303},
    "patient_namespace": "msd_hepatic_vessel",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC-BY-SA 4.0",
    "permits": {"commercial": True, "show_images": True},
    "citation": "Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13, 2022; Simpson "
    "et al., arXiv:1902.09063",
    "url": "http://medicaldecathlon.com",
    "obtain": "python -m segbench fetch msd_hepatic_vessel, or download Task08_HepaticVessel.tar from "
    "medicaldecathlon.com and unpack it",
    "downloads": [
        {
            "url": "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task08_HepaticVessel.tar",
            "unpacks_to": "Task08_HepaticVessel",
            "checksum": "md5:641d79e80ec66453921d997fbf12a29c",
        },
    ],
}
