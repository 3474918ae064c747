"""Class vectors: seeded by name, from a file, from an encoder; damage is refused."""

import numpy as np
import pytest
import torch

from models.blocks.embeddings import class_names, embeddings_of
from models.loader import build_model
from segbench.core.errors import InputError
from tests.unit.models.small import LIVER, LUNG, SPEC, SPLEEN, TASKS, images

NAMES = ["liver", "tumour"]


def encode(texts):
    """Stand for a user's text encoder: the counts of a few letters."""
    return torch.tensor([[float(text.count(letter)) for letter in "aeilt"] for text in texts])


def test_random_vectors_depend_on_the_name_only():
    first = embeddings_of(NAMES, "random")
    torch.manual_seed(5)
    assert torch.equal(first.flip(0), embeddings_of(NAMES[::-1], "random"))
    assert first.shape == (2, 512)
    torch.testing.assert_close(first.norm(dim=1), torch.full((2,), 512**0.5))


def test_a_file_is_read_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", tumour=np.array([0.0, 4.0]), liver=np.array([3.0, 0.0]))
    torch.save({"tumour": torch.tensor([0.0, 4.0]), "liver": torch.tensor([3.0, 0.0])}, tmp_path / "a.pt")
    expected = torch.tensor([[2**0.5, 0.0], [0.0, 2**0.5]])
    for name in ("a.npz", "a.pt"):
        torch.testing.assert_close(embeddings_of(NAMES, f"file:{tmp_path / name}"), expected)


def test_the_released_matrix_is_read_by_its_order_of_classes(tmp_path):
    """32 rows without names, half precision: row 0 is the spleen, row 26 the liver tumour."""
    matrix = torch.zeros(32, 4)
    matrix[:, 0] = 1
    matrix[0, 1] = matrix[26, 2] = 7
    torch.save(matrix.half(), tmp_path / "txt_encoding.pth")
    spleen, tumour = embeddings_of(["spleen", "liver tumour"], f"file:{tmp_path / 'txt_encoding.pth'}")
    assert spleen.argmax() == 1
    assert tumour.argmax() == 2
    with pytest.raises(InputError, match="no vector for 'kidney'"):
        embeddings_of(["kidney"], f"file:{tmp_path / 'txt_encoding.pth'}")


def test_an_encoder_gets_the_filled_template():
    place = f"encoder:{__name__}:encode"
    found = embeddings_of(["liver"], place, template="a {}")
    expected = encode(["a liver"])
    torch.testing.assert_close(found, expected / expected.norm() * 5**0.5)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({"liver": [1.0], "tumor": [1.0]}, "did you mean 'tumor'"),
        ({"liver": [1.0], "tumour": [1.0, 2.0]}, "as the first"),
        ({"liver": [[1.0]], "tumour": [[1.0]]}, "one axis"),
        ({"liver": [0.0], "tumour": [1.0]}, "zero or not finite"),
        ({"liver": [np.nan], "tumour": [1.0]}, "zero or not finite"),
    ],
)
def test_damaged_vectors_are_refused(tmp_path, vectors, message):
    np.savez(tmp_path / "a.npz", **{name: np.array(vector) for name, vector in vectors.items()})
    with pytest.raises(InputError, match=message):
        embeddings_of(NAMES, f"file:{tmp_path / 'a.npz'}")


@pytest.mark.parametrize("source", ["clip", "file:", "encoder:nowhere", "encoder:nowhere:f", "file:absent.npz"])
def test_unknown_sources_are_refused(source):
    with pytest.raises(InputError):
        embeddings_of(NAMES, source)


def test_a_shared_name_is_one_class():
    assert class_names(TASKS, share_names=True) == ["liver", "tumour", "spleen"]
    assert class_names(TASKS, share_names=False) == ["liver", "tumour", "tumour", "spleen"]


@pytest.mark.parametrize("name", ["clip_driven", "clip_driven_original"])
def test_a_class_is_the_same_in_every_task_that_shares_it(name):
    torch.manual_seed(0)
    model = build_model(name, TASKS, SPEC).eval()
    with torch.no_grad():
        features = model.encode(images(size_zyx=(8, 16, 16)))
        liver, lung, spleen = (model.decode(features, task)[0] for task in (LIVER, LUNG, SPLEEN))
    torch.testing.assert_close(liver[:, 2], lung[:, 1])
    assert not torch.allclose(spleen[:, 1], lung[:, 1])
    assert "vectors" in " ".join(model.state_dict()) or "organ_embedding" in model.state_dict()
