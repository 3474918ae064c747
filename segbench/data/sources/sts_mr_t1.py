"""Card of the data set Sarcoma MR T1."""

CARD = {
    "title": "Sarcoma MR T1",
    "layout": "msd",
    "folder": "STS_MR_T1",
    "channels": [{"name": "T1", "modality": "MR"}],
    "classes": {"1": "gross tumour volume"},
    "structures": [{"name": "gross tumour volume", "labels": [1], "tolerance_mm": 4.0, "lesion": True}],
    "tumours": {"1": None},
    "preprocessing": "sts_mr",
    "expected_cases": {"total": 51},
    "patient_namespace": "sts",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC BY 3.0",
    "permits": {"commercial": True, "show_images": True},
    "citation": "IBSI validation dataset (A. Zwanenburg et al., theibsi/data_sets), derived from the TCIA "
    "collection Soft-tissue-Sarcoma: M. Vallieres et al., 'A radiomics model from joint FDG-PET and "
    "MRI texture features for the prediction of lung metastases in soft-tissue sarcomas of the "
    "extremities', Phys Med Biol 60(14):5471-5496, 2015; data doi:10.7937/K9/TCIA.2015.7GO2GSKS",
    "url": "https://github.com/theibsi/data_sets",
    "obtain": "copy https://github.com/theibsi/data_sets (ibsi_validation) at commit 6da96021bc91 into a folder "
    "STS_MR_T1 in Medical Segmentation Decathlon layout",
}
