"""Card of the data set Head and neck organs (OpenKBP)."""

CARD = {
    "title": "Head and neck organs (OpenKBP)",
    "layout": "msd",
    "folder": "OpenKBP_HeadNeckCT",
    "channels": [{"name": "CT", "modality": "CT"}],
    "classes": {"1": "brainstem", "2": "spinal cord", "3": "right parotid", "4": "left parotid", "5": "mandible"},
    "structures": [
        {"name": "brainstem", "labels": [1], "tolerance_mm": 3.0, "lesion": False},
        {"name": "spinal cord", "labels": [2], "tolerance_mm": 3.0, "lesion": False},
        {"name": "right parotid", "labels": [3], "tolerance_mm": 3.0, "lesion": False},
        {"name": "left parotid", "labels": [4], "tolerance_mm": 3.0, "lesion": False},
        {"name": "mandible", "labels": [5], "tolerance_mm": 3.0, "lesion": False},
    ],
    "sides": [["right parotid", "left parotid"]],
    "preprocessing": "openkbp",
    "expected_cases": {"total": 126},
    "patient_namespace": "openkbp",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "MIT (repository licence of the data set's authors; third parties also cite CC BY 4.0)",
    "permits": {"commercial": True, "show_images": True},
    "citation": "A. Babier et al., 'OpenKBP: The open-access knowledge-based planning grand challenge and "
    "dataset', Medical Physics 48:5549-5561, 2021",
    "url": "https://github.com/ababier/open-kbp",
    "obtain": "copy https://github.com/ababier/open-kbp (provided-data) at commit ce625e62f3b0 into a folder "
    "OpenKBP_HeadNeckCT in Medical Segmentation Decathlon layout",
}
