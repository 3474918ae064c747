"""Card of the data set Ischaemic stroke MR (ISLES 2022 sample)."""

CARD = {
    "title": "Ischaemic stroke MR (ISLES 2022 sample)",
    "layout": "msd",
    "folder": "ISLES22_sample",
    "channels": [{"name": "DWI", "modality": "MR"}, {"name": "ADC", "modality": "MR"}],
    "classes": {"1": "infarct"},
    "structures": [{"name": "infarct", "labels": [1], "tolerance_mm": 2.0, "lesion": True}],
    "tumours": {"1": None},
    "preprocessing": "default",
    "expected_cases": {"total": 1},
    "patient_namespace": "isles22",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC BY 4.0 (data set); MIT (source repository)",
    "permits": {"commercial": True, "show_images": True},
    "citation": "M. R. Hernandez Petzsche et al., 'ISLES 2022: A multi-center magnetic resonance imaging stroke "
    "lesion segmentation dataset', Scientific Data 9:762, 2022",
    "url": "https://github.com/ezequieldlrosa/isles22",
    "obtain": "copy https://github.com/ezequieldlrosa/isles22 (utils/data) at commit 31b7c8c29ab0 into a folder "
    "ISLES22_sample in Medical Segmentation Decathlon layout",
}
