"""Card of the data set Heart cine MR (ACDC)."""

CARD = {
    "title": "Heart cine MR (ACDC)",
    "layout": "msd",
    "folder": "ACDC_CineMR",
    "channels": [{"name": "cine", "modality": "MR"}],
    "classes": {"1": "right ventricle", "2": "myocardium", "3": "left ventricle"},
    "structures": [
        {"name": "right ventricle", "labels": [1], "tolerance_mm": 2.0, "lesion": False},
        {"name": "myocardium", "labels": [2], "tolerance_mm": 2.0, "lesion": False},
        {"name": "left ventricle", "labels": [3], "tolerance_mm": 2.0, "lesion": False},
    ],
    "preprocessing": "acdc",
    "expected_cases": {"total": 100},
    "patient_namespace": "acdc",
    "spacing_is_nominal": True,
    "synthetic": False,
    "licence": "CC BY-NC-SA 4.0 (non-commercial scientific research only)",
    "permits": {"commercial": False, "show_images": True},
    "citation": "O. Bernard, A. Lalande, C. Zotti, F. Cervenansky, et al., 'Deep Learning Techniques for "
    "Automatic MRI Cardiac Multi-structures Segmentation and Diagnosis: Is the Problem Solved?', "
    "IEEE Transactions on Medical Imaging 37(11):2514-2525, 2018, doi:10.1109/TMI.2018.2837502",
    "url": "https://github.com/HiLab-git/WSL4MIS",
    "obtain": "copy https://github.com/HiLab-git/WSL4MIS (data/ACDC/ACDC_training_volumes) at commit "
    "a594da8d99a4 into a folder ACDC_CineMR in Medical Segmentation Decathlon layout",
}
