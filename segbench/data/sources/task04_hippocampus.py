"""Card of the data set Hippocampus."""

CARD = {
    "title": "Hippocampus",
    "layout": "msd",
    "folder": "Task04_Hippocampus",
    "channels": [{"name": "T1", "modality": "MR"}],
    "classes": {"1": "anterior", "2": "posterior"},
    "structures": [
        {"name": "anterior", "labels": [1], "tolerance_mm": 1.0, "lesion": False},
        {"name": "posterior", "labels": [2], "tolerance_mm": 1.0, "lesion": False},
    ],
    "preprocessing": "hippocampus",
    "expected_cases": {"total": 260},
    "patient_namespace": "msd_hippocampus",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC-BY-SA 4.0",
    "permits": {"commercial": True, "show_images": True},
    "citation": "Vanderbilt University Medical Center; A. L. Simpson et al., 'A large annotated medical image "
    "dataset for the development and evaluation of segmentation algorithms', arXiv:1902.09063",
    "url": "http://medicaldecathlon.com",
    "obtain": "python -m segbench fetch task04_hippocampus, or download Task04_Hippocampus.tar from "
    "medicaldecathlon.com and unpack it",
    "downloads": [
        {
            "url": "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task04_Hippocampus.tar",
            "unpacks_to": "Task04_Hippocampus",
            "checksum": "md5:9d24dba78a72977dbd1d2e110310f31b",
        },
    ],
}
