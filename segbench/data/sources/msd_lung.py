"""Card of Task06_Lung of the Medical Segmentation Decathlon."""

CARD = {
    "title": "Lung tumour (MSD)",
    "layout": "msd",
    "folder": "Task06_Lung",
    "channels": [{"name": "CT", "modality": "CT"}],
    "classes": {"1": "lung tumour"},
    "structures": [{"name": "lung tumour", "labels": [1], "tolerance_mm": 3.0, "lesion": True}],
    "tumours": {"1": None},
    "preprocessing": "ct",
    "expected_cases": {"total": 63},
    "patient_namespace": "msd_lung",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC-BY-SA 4.0",
    "permits": {"commercial": True, "show_images": True},
    "citation": "Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13, 2022; Simpson "
    "et al., arXiv:1902.09063",
    "url": "http://medicaldecathlon.com",
    "obtain": "python -m segbench fetch msd_lung, or download Task06_Lung.tar from medicaldecathlon.com and unpack it",
    "downloads": [
        {
            "url": "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task06_Lung.tar",
            "unpacks_to": "Task06_Lung",
            "checksum": "md5:8afd997733c7fc0432f71255ba4e52dc",
        },
    ],
}
