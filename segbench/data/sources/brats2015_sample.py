"""Card of the data set Brain tumour MR (BraTS 2015 sample)."""

CARD = {
    "title": "Brain tumour MR (BraTS 2015 sample)",
    "layout": "msd",
    "folder": "BraTS2015_sample",
    "channels": [{"name": "FLAIR", "modality": "MR"}, {"name": "T1gd", "modality": "MR"}],
    "classes": {"1": "necrosis", "2": "edema", "3": "non-enhancing tumour", "4": "enhancing tumour"},
    "structures": [
        {"name": "necrosis", "labels": [1], "tolerance_mm": 2.0, "lesion": True},
        {"name": "edema", "labels": [2], "tolerance_mm": 2.0, "lesion": True},
        {"name": "non-enhancing tumour", "labels": [3], "tolerance_mm": 2.0, "lesion": True},
        {"name": "enhancing tumour", "labels": [4], "tolerance_mm": 2.0, "lesion": True},
    ],
    "preprocessing": "brats2015",
    "expected_cases": {"total": 6},
    "patient_namespace": "brats2015",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC BY-NC-SA 3.0 CH",
    "permits": {"commercial": False, "show_images": True},
    "citation": "B. H. Menze et al., 'The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS)', IEEE "
    "Transactions on Medical Imaging 34(10):1993-2024, 2015",
    "url": "https://github.com/deepmedic/deepmedic",
    "obtain": "copy https://github.com/deepmedic/deepmedic (examples/dataForExamples/brats2015TrainingData) at "
    "commit e10ba7c3570d into a folder BraTS2015_sample in Medical Segmentation Decathlon layout",
}
