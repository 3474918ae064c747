"""Card of Task07_Pancreas of the Medical Segmentation Decathlon."""

CARD = {
    "title": "Pancreas (MSD)",
    "layout": "msd",
    "folder": "Task07_Pancreas",
    "channels": [{"name": "CT", "modality": "CT"}],
    "classes": {"1": "pancreas", "2": "pancreas tumour"},
    "structures": [
        {"name": "pancreas", "labels": [1], "tolerance_mm": 3.0, "lesion": False},
        {"name": "pancreas tumour", "labels": [2], "tolerance_mm": 3.0, "lesion": True},
    ],
    "tumours": {"2": 1},
    "preprocessing": "ct",
    "expected_cases": {"total": 281},
    "patient_namespace": "msd_pancreas",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC-BY-SA 4.0",
    "permits": {"commercial": True, "show_images": True},
    "citation": "Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13, 2022; Simpson "
    "et al., arXiv:1902.09063",
    "url": "http://medicaldecathlon.com",
    "obtain": "python -m segbench fetch msd_pancreas, or download Task07_Pancreas.tar from medicaldecathlon.com "
    "and unpack it",
    "downloads": [
        {
            "url": "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task07_Pancreas.tar",
            "unpacks_to": "Task07_Pancreas",
            "checksum": "md5:4f7080cfca169fa8066d17ce6eb061e4",
        },
    ],
}
