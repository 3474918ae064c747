"""Card of the data set Spinal cord MR."""

CARD = {
    "title": "Spinal cord MR",
    "layout": "msd",
    "folder": "SpinalCord_SCT",
    "channels": [{"name": "MR", "modality": "MR"}],
    "classes": {"1": "spinal cord"},
    "structures": [{"name": "spinal cord", "labels": [1], "tolerance_mm": 1.0, "lesion": False}],
    "preprocessing": "default",
    "expected_cases": {"total": 5},
    "patient_namespace": "sct",
    "patient_pattern": "(errsm30)_",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "MIT",
    "permits": {"commercial": True, "show_images": True},
    "citation": "Spinal Cord Toolbox example data (errsm_30), NeuroPoly",
    "url": "https://github.com/spinalcordtoolbox/sct_testing_data",
    "obtain": "copy https://github.com/spinalcordtoolbox/sct_testing_data at commit af4c7e8783c9 into a folder "
    "SpinalCord_SCT in Medical Segmentation Decathlon layout",
}
