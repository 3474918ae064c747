"""Each layout of released weights arrives in the right tensors, by a kept library's own state dict where it has one.

The miniatures have the original names; shapes follow from smaller widths.
"""

import importlib

import pytest
import torch
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from monai.networks.nets import SegResNet, SwinUNETR

from models.baselines.dodnet_original import DoDNetOriginal
from models.interface import NetworkSpec
from models.loader import build_model, model_card
from models.weights.transfer import transfer_weights
from segbench.core.cards import dataset_cards, format_cards, loaded_prefixes
from segbench.core.errors import InputError
from segbench.core.task import TaskSet
from tests.unit.models.small import TASKS, images, make_task

CUBES = NetworkSpec(
    patch_size_zyx=(16, 16, 16),
    base_features=8,
    max_features=20,
    pool_kernels_zyx=((2, 2, 2), (2, 2, 2)),
    conv_kernels_zyx=((3, 3, 3),) * 3,
)
SWIN = NetworkSpec(patch_size_zyx=(32, 32, 64), base_features=8)
WINDOW = {"window_size": 2}


def target(name, *, channels=1, spec=CUBES, seed=1, classes=("spleen",), **options):
    torch.manual_seed(seed)
    return build_model(name, TaskSet([make_task("toy", classes, channels=channels)]), spec, **options)


def take(checkpoint, model, *, name, source_format, **options):
    prefixes = loaded_prefixes(format_cards()[source_format], name, model_card(name))
    return transfer_weights(checkpoint, model, source_format=source_format, prefixes=prefixes, **options)


def library(network, **arguments):
    torch.manual_seed(3)
    return network(**arguments).eval()


def swin(in_channels=1):
    return library(SwinUNETR, in_channels=in_channels, out_channels=14, feature_size=12, **WINDOW)


def pretrained_swin(state):
    """What model_swinvit.pt holds: the transformer's tensors by old names, and heads of its self-supervised tasks."""
    old = {
        "module." + name.removeprefix("swinViT.").replace(".mlp.linear", ".mlp.fc"): tensor
        for name, tensor in state.items()
        if name.startswith("swinViT.")
    }
    return {"epoch": 1, "state_dict": old | {"module.rotation_head.weight": torch.zeros(4, 192)}}


def test_self_supervised_swin_unetr_arrives_as_monai_loads_it():
    checkpoint, reference = pretrained_swin(swin().state_dict()), swin()
    with torch.no_grad():
        for tensor in reference.parameters():
            tensor.zero_()
    reference.load_from(checkpoint)
    model = target("swin_unetr", spec=SWIN, **WINDOW)
    report = take(checkpoint, model, name="swin_unetr", source_format="swin_unetr_ssl")
    own = model.network.swinViT.state_dict()
    assert {f"network.swinViT.{name}" for name in own} == set(report.matched)
    assert all(torch.equal(tensor, own[name]) for name, tensor in reference.swinViT.state_dict().items())
    assert report.unused == ["rotation_head.weight"]
    assert 0.1 < report.fraction < 0.2
    x_BCZYX = images(size_zyx=(32, 32, 64))
    for ours, theirs in zip(model.eval().network.swinViT(x_BCZYX), reference.swinViT(x_BCZYX), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_newer_pretraining_of_swin_unetr_has_other_names():
    state = {name: tensor for name, tensor in swin().state_dict().items() if name.startswith("swinViT.")}
    report = take(state, target("swin_unetr", spec=SWIN, **WINDOW), name="swin_unetr", source_format="swin_unetr_ssl")
    assert not report.unused


def test_more_channels_leave_the_stem_of_swin_unetr_new_and_say_why():
    model = target("swin_unetr", channels=2, spec=SWIN, **WINDOW)
    stem = "network.swinViT.patch_embed.proj.weight"
    before = model.state_dict()[stem].clone()
    checkpoint = pretrained_swin(swin().state_dict())
    report = take(checkpoint, model, name="swin_unetr", source_format="swin_unetr_ssl")
    assert stem in report.missing
    assert report.reasons == {stem: "shape [12, 1, 2, 2, 2] in the source, [12, 2, 2, 2, 2] here"}
    assert torch.equal(model.state_dict()[stem], before)


def inside_clip_driven(state):
    """A checkpoint of SuPreM: the backbone within a data-parallel CLIP-driven model, beside its heads."""
    heads = {"organ_embedding": torch.zeros(25, 512), "controller.bias": torch.zeros(153)}
    net = {f"module.backbone.{name}": tensor for name, tensor in state.items()}
    return {"net": net | {f"module.{name}": tensor for name, tensor in heads.items()}, "epoch": 800}


def test_suprem_swin_unetr_answers_as_monai_network():
    original = swin()
    model = target("swin_unetr", spec=SWIN, **WINDOW, classes=[f"organ {number}" for number in range(13)])
    checkpoint = inside_clip_driven(original.state_dict())
    report = take(checkpoint, model, name="swin_unetr", source_format="suprem")
    assert report.missing == ["network.out.conv.conv.bias", "network.out.conv.conv.weight"]
    assert report.fraction > 0.99
    model.network.out.load_state_dict(original.out.state_dict())
    x_BCZYX = images(size_zyx=(32, 32, 64))
    torch.testing.assert_close(model.eval().network(x_BCZYX)[0], original(x_BCZYX))


def test_suprem_segresnet_answers_as_monai_network():
    original = library(
        SegResNet, blocks_down=[1, 2, 2, 4], blocks_up=[1, 1, 1], init_filters=8, in_channels=1, out_channels=2
    )
    model = target("segresnet_plain")
    checkpoint = {"net": {f"module.{name}": tensor for name, tensor in original.state_dict().items()}}
    report = take(checkpoint, model, name="segresnet_plain", source_format="suprem_segresnet")
    assert report.missing == ["network.conv_final.2.conv.bias", "network.conv_final.2.conv.weight"]
    assert report.unused == ["conv_final.2.conv.bias", "conv_final.2.conv.weight"]
    model.network.conv_final[2].load_state_dict(original.conv_final[2].state_dict())
    x_BCZYX = images(size_zyx=(16, 16, 16))
    torch.testing.assert_close(model.eval().network(x_BCZYX), original(x_BCZYX))


def residual_encoder():
    """The network of nnssl's ResEnc-L with fewer and narrower stages, and one output channel as its autoencoder has."""
    return library(
        ResidualEncoderUNet,
        input_channels=1,
        n_stages=3,
        features_per_stage=[8, 16, 20],
        conv_op=torch.nn.Conv3d,
        kernel_sizes=[[3, 3, 3]] * 3,
        strides=[[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        n_blocks_per_stage=[1, 3, 4],
        num_classes=1,
        n_conv_per_stage_decoder=[1, 1],
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_nnssl_fills_the_residual_encoder_and_repeats_its_stem(channels):
    original = residual_encoder()
    model = target("nnunet_resenc", channels=channels)
    checkpoint = {"network_weights": original.state_dict(), "nnssl_adaptation_plan": {"key_to_stem": "encoder.stem"}}
    report = take(checkpoint, model, name="nnunet_resenc", source_format="nnssl")
    stem = "network.encoder.stem.convs.0.conv.weight"
    assert report.resized == ([] if channels == 1 else [stem])
    assert all(name.startswith("network.decoder.") for name in report.missing)
    assert all(name.startswith("decoder.") and ".encoder." not in name for name in report.unused)
    x_BCZYX = images(size_zyx=(16, 16, 16))
    ours = model.eval().network.encoder(x_BCZYX.expand(-1, channels, -1, -1, -1))
    for found, expected in zip(ours, original.encoder(x_BCZYX), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)  # three sums instead of one in the stem


def plain_unet(base=8):
    """The U-Net of Models Genesis by its names: double convolutions with batch norm, widths doubling from 2 x base."""
    torch.manual_seed(4)
    state, inputs = {}, 1

    def convolution(name, inputs, outputs):
        state[f"{name}.conv1.weight"] = torch.randn(outputs, inputs, 3, 3, 3)
        for end in ("conv1.bias", "bn1.weight", "bn1.bias", "bn1.running_mean"):
            state[f"{name}.{end}"] = torch.randn(outputs)
        state[f"{name}.bn1.running_var"] = torch.rand(outputs)
        state[f"{name}.bn1.num_batches_tracked"] = torch.tensor(7)

    for depth, stage in enumerate(("down_tr64", "down_tr128", "down_tr256", "down_tr512")):
        width = base * 2**depth
        convolution(f"{stage}.ops.0", inputs, width)
        convolution(f"{stage}.ops.1", width, 2 * width)
        inputs = 2 * width
    for depth, stage in ((2, "up_tr256"), (1, "up_tr128"), (0, "up_tr64")):
        width = base * 2 ** (depth + 1)
        state[f"{stage}.up_conv.weight"] = torch.randn(2 * width, 2 * width, 2, 2, 2)
        state[f"{stage}.up_conv.bias"] = torch.randn(2 * width)
        convolution(f"{stage}.ops.0", 3 * width, width)
        convolution(f"{stage}.ops.1", width, width)
    return state


def genesis():
    out = {"out_tr.final_conv.weight": torch.zeros(1, 16, 1, 1, 1), "out_tr.final_conv.bias": torch.zeros(1)}
    state = {f"module.{name}": tensor for name, tensor in (plain_unet() | out).items()}
    return {"epoch": 620, "state_dict": state, "optimizer_state_dict": {"param_groups": []}}


@pytest.mark.parametrize(
    ("source_format", "checkpoint"),
    [("models_genesis", genesis()), ("suprem", inside_clip_driven(plain_unet()))],
    ids=["models_genesis", "suprem"],
)
def test_the_plain_unet_is_filled_whole(source_format, checkpoint):
    model = target("clip_driven_original")
    report = take(checkpoint, model, name="clip_driven_original", source_format=source_format)
    backbone, original = model.backbone.state_dict(), plain_unet()
    assert {f"backbone.{name}" for name in backbone} == set(report.matched)
    assert all(torch.equal(tensor, original[name]) for name, tensor in backbone.items())
    assert not [name for name in report.missing if name.startswith("backbone.")]
    assert report.fraction > 0.9


def test_models_genesis_fills_its_own_network_but_for_the_output():
    model = target("models_genesis")
    report = take(genesis(), model, name="models_genesis", source_format="models_genesis")
    own, original = model.network.state_dict(), plain_unet()
    assert report.missing == ["network.out_tr.final_conv.bias", "network.out_tr.final_conv.weight"]
    assert {f"network.{name}" for name in own if "out_tr" not in name} == set(report.matched)
    assert all(torch.equal(tensor, original[name]) for name, tensor in own.items() if "out_tr" not in name)


@pytest.mark.parametrize("channels", [1, 3])
def test_stunet_fills_all_but_its_outputs_and_repeats_the_first_block(channels):
    released = target("stunet", seed=8, classes=[f"organ {number}" for number in range(5)])
    checkpoint = {"epoch": 4000, "state_dict": released.network.state_dict(), "plot_stuff": ([], [], [], [])}
    model = target("stunet", channels=channels)
    report = take(checkpoint, model, name="stunet", source_format="stunet")
    first = "network.conv_blocks_context.0.0"
    assert report.resized == ([] if channels == 1 else [f"{first}.conv1.weight", f"{first}.conv3.weight"])
    assert {name.split(".")[1] for name in report.missing} == {"seg_outputs"}
    assert {name.split(".")[0] for name in report.unused} == {"seg_outputs"}
    x_BCZYX = images(size_zyx=(16, 16, 16))
    ours = model.eval().network.conv_blocks_context[0](x_BCZYX.expand(-1, channels, -1, -1, -1))
    torch.testing.assert_close(ours, released.eval().network.conv_blocks_context[0](x_BCZYX), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 2])
def test_desd_fills_the_encoder_from_its_teacher_and_repeats_the_stem(channels):
    own = target("desd_resnet", seed=8).network.encoder.state_dict()
    wrapped = {f"backbone.{name}": tensor for name, tensor in own.items()} | {"head.mlp.0.weight": torch.zeros(4, 9)}
    student = {f"module.{name}": torch.zeros_like(tensor) for name, tensor in wrapped.items()}
    model = target("desd_resnet", channels=channels)
    checkpoint = {"student": student, "teacher": wrapped, "epoch": 300}
    report = take(checkpoint, model, name="desd_resnet", source_format="desd")
    assert report.resized == ([] if channels == 1 else ["network.encoder.conv1.weight"])
    assert report.unused == ["head.mlp.0.weight"]
    assert not [name for name in report.missing if name.startswith("network.encoder.")]
    loaded = model.network.encoder.state_dict()
    torch.testing.assert_close(loaded["conv1.weight"].sum(dim=1, keepdim=True), own["conv1.weight"])
    assert all(torch.equal(loaded[name], tensor) for name, tensor in own.items() if name != "conv1.weight")


def test_the_released_clip_driven_model_leaves_its_classes_behind():
    released, model = target("clip_driven_original", seed=5, classes=("a", "b", "c")), target("clip_driven_original")
    checkpoint = {"net": {f"module.{name}": tensor for name, tensor in released.state_dict().items()}}
    report = take(checkpoint, model, name="clip_driven_original", source_format="clip_driven_official")
    classes = {"organ_embedding", "controller", "text_to_vision"}
    assert {name.split(".")[0] for name in report.missing} == classes
    assert {name.split(".")[0] for name in report.unused} == classes
    x_BCZYX = images(size_zyx=(16, 16, 16))
    for found, expected in zip(model.encode(x_BCZYX), released.encode(x_BCZYX), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_released_dodnet_leaves_its_controller_behind():
    torch.manual_seed(6)
    released = DoDNetOriginal(TaskSet([]), CUBES, widths=(16, 32, 64, 128, 128), blocks=(1, 2, 2, 2, 2), task_count=7)
    model = target("dodnet_original")
    checkpoint = {"model": released.state_dict()}
    report = take(checkpoint, model, name="dodnet_original", source_format="dodnet_official")
    assert report.missing == report.unused == ["controller.bias", "controller.weight"]
    x_BCZYX = images(size_zyx=(16, 16, 16))
    for found, expected in zip(model.encode(x_BCZYX), released.encode(x_BCZYX), strict=True):
        torch.testing.assert_close(found, expected)


def test_what_was_imported_comes_back_whole():
    source = target("swin_unetr", spec=SWIN, **WINDOW, seed=7).state_dict()
    model = target("swin_unetr", spec=SWIN, **WINDOW)
    kept = {name: tensor for name, tensor in source.items() if "out." not in name}
    report = take(kept, model, name="swin_unetr", source_format="imported")
    assert set(report.matched) == set(kept)


def without(name):
    return lambda state: state.pop(name)


def with_rows(name, rows):
    return lambda state: state.update({name: state[name][:rows]})


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (without("up_tr64.ops.1.bn1.bias"), r"found no up_tr64\.ops\.1\.bn1\.bias; expected shape \(16,\)"),
        (with_rows("down_tr128.ops.0.conv1.weight", 3), r"of shape \(3, 16, 3, 3, 3\); expected shape \(16, 16, 3, 3,"),
        (dict.clear, "empty dictionary"),
        (lambda state: state.update(dict.fromkeys(state, torch.zeros(2))), "62 tensors missing or of another shape, 5"),
    ],
)
def test_a_corrupted_file_is_named_and_loads_nothing(corrupt, message):
    state, model = plain_unet(), target("clip_driven_original")
    corrupt(state)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match=message):
        take(state, model, name="clip_driven_original", source_format="models_genesis")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", sorted(format_cards()))
def test_each_format_names_networks_that_exist_and_tensors_that_they_have(name):
    card, layout = format_cards()[name], importlib.import_module(f"models.weights.formats.{name}")
    assert layout.file_name("encoder.first.conv.weight")
    for network, prefixes in card["targets"].items():
        if network in ("any", "shared"):
            continue
        spec = SWIN if network == "swin_unetr" else CUBES
        own = target(network, spec=spec).state_dict()
        assert all(any(key.startswith(prefix) for key in own) for prefix in prefixes)
        assert loaded_prefixes(card, network, model_card(network)) == prefixes
    others = [other for other in ("unetr", "mednext") if loaded_prefixes(card, other, model_card(other))]
    assert others == (["unetr", "mednext"] if "any" in card["targets"] else [])


def test_the_probe_depends_on_weights_not_on_seed_or_classes():
    state = plain_unet()
    first = take(state, target("clip_driven_original"), name="clip_driven_original", source_format="models_genesis")
    other = target("clip_driven_original", seed=9, classes=("spleen", "tumour"))
    again = take(state, other, name="clip_driven_original", source_format="models_genesis")
    assert again.probe == pytest.approx(first.probe, rel=1e-5)
    state["down_tr64.ops.0.conv1.weight"] = state["down_tr64.ops.0.conv1.weight"].flip(0)
    changed = take(state, target("clip_driven_original"), name="clip_driven_original", source_format="models_genesis")
    assert changed.probe != pytest.approx(first.probe, rel=1e-3)


def test_another_answer_to_the_probe_stops_before_loading():
    model = target("clip_driven_original")
    arguments = {"name": "clip_driven_original", "source_format": "models_genesis"}
    recorded = take(plain_unet(), target("clip_driven_original"), **arguments).probe
    assert take(plain_unet(), model, expected_probe=recorded, **arguments).probe == recorded
    model = target("clip_driven_original")
    before = model.backbone.down_tr64.ops[0].conv1.weight.clone()
    with pytest.raises(InputError, match=r"found probe .* expected .*standard deviation"):
        take(plain_unet(), model, expected_probe=[recorded[0] + recorded[1], *recorded[1:]], **arguments)
    assert torch.equal(before, model.backbone.down_tr64.ops[0].conv1.weight)


def test_weights_that_change_no_answer_are_refused():
    model = target("single_task")
    model.encoder.register_parameter("idle", torch.nn.Parameter(torch.zeros(3)))
    with pytest.raises(InputError, match="same answer to the probe"):
        transfer_weights({"encoder.idle": torch.ones(3)}, model, minimum_fraction=0.0)


def test_weights_that_overflow_are_refused():
    state = {name: tensor.clone() for name, tensor in build_model("multi_head", TASKS, CUBES).state_dict().items()}
    state["decoder.blocks.1.1.norm.weight"] += 3e38
    with pytest.raises(InputError, match="nan or inf on the probe"):
        transfer_weights(state, target("single_task"))


def test_weights_that_are_all_zero_are_refused():
    state = {name: torch.zeros_like(tensor) for name, tensor in plain_unet().items()}
    with pytest.raises(InputError, match="one logit for every voxel"):
        take(state, target("clip_driven_original"), name="clip_driven_original", source_format="models_genesis")


def test_the_released_dodnet_reaches_a_task_of_thirteen_organs():
    torch.manual_seed(6)
    released = DoDNetOriginal(TaskSet([]), CUBES, widths=(16, 32, 64, 128, 128), blocks=(1, 2, 2, 2, 2), task_count=7)
    organs = tuple(f"organ {number}" for number in range(13))
    model = target("dodnet_original", classes=organs)
    report = take({"model": released.state_dict()}, model, name="dodnet_original", source_format="dodnet_official")
    assert report.missing == ["controller.bias", "controller.weight"]
    (logits_BKZYX,) = model(images(size_zyx=(16, 16, 16)), next(iter(model.tasks)))
    assert logits_BKZYX.shape[1] == 14


@pytest.mark.parametrize("name", format_cards())
def test_what_a_format_was_trained_on_names_our_data_sets(name):
    stated = format_cards()[name]["trained_on"]
    assert stated == "unknown" or stated.keys() <= dataset_cards().keys()
    assert stated or format_cards()[name]["other_data"]


def test_what_is_stated_of_images_names_the_file_where_it_was_read():
    for name, card in format_cards().items():
        if card["url"]:
            assert len(card["images_source"]) > 20, name
        else:
            assert card["images_source"] == "", f"{name}: the user knows its source"


def test_windows_and_axes_are_those_of_the_released_code():
    """Defaults of the training scripts that the cards name."""
    lungs, abdomen = ((-1000.0, 1000.0), (0.0, 1.0)), ((-175.0, 250.0), (0.0, 1.0))
    expected = {
        **dict.fromkeys(("clip_driven_official", "suprem", "suprem_segresnet"), ("xyz", abdomen)),
        **dict.fromkeys(("swin_unetr_ssl", "models_genesis"), ("xyz", lungs)),
        "desd": ("zyx", ((-1024.0, 1024.0), (-1.0, 1.0))),
    }
    for name, (axes, (window, scaled)) in expected.items():
        card = format_cards()[name]
        stated = card["intensities"]
        assert card["axes"] == axes, name
        assert (tuple(stated["window_hu"]), tuple(stated["scaled_to"])) == (window, scaled), name
