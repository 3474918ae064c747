"""Arguments for weights that others released: what no shape tells is taken as it is spelt, or refused."""

import pytest

from models.baselines import dodnet_original, medformer, mednext, nnformer, stunet
from segbench.core.errors import InputError


@pytest.mark.parametrize(
    ("module", "name", "meant"),
    [
        (mednext, "norm_typ", "norm_type"),
        (mednext, "do_ress", "do_res"),
        (dodnet_original, "weight_standardization", "weight_standardisation"),
        (stunet, "pool_op_kernel_size", "pool_op_kernel_sizes"),
        (medformer, "scales", "scale"),
        (nnformer, "crop_sizes", "crop_size"),
    ],
)
def test_a_misspelt_argument_is_refused(module, name, meant):
    with pytest.raises(InputError, match=rf"the argument {name}; expected {meant}; did you mean {meant}\?"):
        module.from_official({}, **{name: "anything"})


def test_arguments_that_shapes_tell_may_have_any_value():
    given = {"pool_op_kernel_sizes": [[2, 2, 2]], "conv_kernel_sizes": [[3, 3, 3]], "depth": [1], "num_classes": 2}
    with pytest.raises(InputError, match="found an empty dictionary"):
        stunet.from_official({}, **given)
