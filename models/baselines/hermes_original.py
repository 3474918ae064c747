"""Hermes as released, in both forms: learned priors of tasks and modalities meet the features at five levels.

Axis legend: B batch, T tasks asked, M prior tokens, N tokens, C channel, K class, Z Y X space. Written from the facts
of the released networks (Gao et al., CVPR 2024); what Hermes calls a task is one class here. Modules have the names of
the released state dicts, so that they load as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.blocks.attention import to_tokens, to_volume
from models.blocks.classes import class_channels
from models.blocks.medformer import (
    LIST_LAYERS,
    PUBLISHED_FUSION_HEADS,
    PUBLISHED_HEADS,
    BasicBlock,
    Down,
    MapFusion,
    Mlp,
    PreNorm,
    Sizes,
    Stem,
    Up,
    check_activation,
    enlarged,
    has_auxiliary,
    measured,
    scales_of,
    sizes_for,
)
from models.blocks.own_network import padded_size_zyx
from models.blocks.placement import on_device
from models.interface import NetworkSpec, SegmentationModel
from models.weights.official import Shape, check_arguments, count_of, kernel_zyx, majority, shapes_of
from models.weights.official import inputs as inputs_of
from models.weights.official import outputs as outputs_of
from models.weights.reading import load_strictly, tensors_of
from segbench.core.errors import input_error, suggestion
from segbench.core.task import Task, TaskSet

CARD = {
    "title": "Hermes (original network)",
    "kind": "universal",
    "citation": "Gao et al., Training Like a Medical Resident: Context-Prior Learning Toward Universal Medical Image "
    "Segmentation, CVPR 2024",
    "url": "https://github.com/yhygao/universal-medical-image-segmentation",
    "licence": "Apache-2.0",
    "original_licence": "none",
    "fidelity": "numerical",
    "deviations": [
        "widths follow the config's base; with base 32 they are the original's; heads of the U-Net form have 32 "
        "features or, below a width of 32, that width",
        "each channel count beyond the first has a first convolution of its own; the original takes one channel",
        "one task prior per class of the tasks at hand; modalities are those of the data sets' channels together",
        "the sigmoids of one data set answer for its exclusive classes",
        "the modality is not classified beside the segmentation; the original's loss has 0.01 of that",
        "input sizes that are no multiple of 16 are padded with zeros and cropped back",
        "no exponential moving average of the weights; under the equal recipe SGD replaces the published LAMB of "
        "learning rate 2e-3",
    ],
    "channels": "any",
    "patch_multiple": [16, 16, 16],
    "options": {
        "form": {
            "default": "medformer",
            "help": "medformer, the network of the paper's main results, or unet, its residual U-Net",
            "labels": {"medformer": "MedFormer", "unet": "residual U-Net"},
            "always_named": True,
        },
        "share_names": {"default": False, "help": "classes of one name in several tasks are one class"},
    },
    "encoder_keys": ["network.inc.", "network.down"],
    "backbone": "own",
    "published_recipe": {"as": "hermes"},
}
OFFICIAL = ("hermes_official", "hermes_unet_official")
WHERE = "official Hermes weights"
Triple = tuple[int, int, int]
MODALITY_TOKENS = 10
HEAD_WIDTH = 32  # of the U-Net form
SCALES_ZYX = ((2, 2, 2),) * 4
FORMS = ("medformer", "unet")


def priors_of(module: nn.Module, tasks: Tensor, modalities: Tensor) -> Tensor:
    """Return `priors_BMC` from a module's two priors: the tokens of the tasks asked, then those of the modality.

    tasks: rows (B, T), -1 the null token; modalities: rows (B,).
    """
    return torch.cat([module.task_prior[tasks], module.modality_prior[modalities]], dim=1)  # type: ignore[index]


def add_priors(module: nn.Module, *, tasks: int, modalities: int, width: int) -> None:
    """Give a module the priors of one level; the last row of the tasks' is the null token."""
    module.task_prior = nn.Parameter(torch.randn(tasks + 1, width))
    module.modality_prior = nn.Parameter(torch.randn(modalities, MODALITY_TOKENS, width))


class PriorSelection(nn.Module):
    """The priors of one level."""

    def __init__(self, *, tasks: int, modalities: int, width: int):
        super().__init__()
        add_priors(self, tasks=tasks, modalities=modalities, width=width)

    def forward(self, tasks: Tensor, modalities: Tensor) -> Tensor:
        """Return `priors_BMC`."""
        return priors_of(self, tasks, modalities)


class Classifier(nn.Module):
    """Turns what became of the task tokens into one weight vector per task."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.classifier_pred = nn.Sequential(Mlp(inputs, inputs, outputs), Mlp(outputs, outputs, outputs))

    def forward(self, x_BCZYX: Tensor, tokens_BTC: Tensor) -> Tensor:
        """Return the logit of each task asked, (B, T, Z, Y, X)."""
        weights_BTC = self.classifier_pred(self.norm(tokens_BTC))
        return torch.einsum("btc,bczyx->btzyx", weights_BTC, x_BCZYX)


class ModalityClassifier(nn.Module):
    """Tells the modality from what became of its tokens."""

    def __init__(self, inputs: int, modalities: int):
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.classifier = Mlp(inputs, inputs, modalities)

    def forward(self, tokens_BNC: Tensor) -> Tensor:
        """Return logits (B, modalities)."""
        return self.classifier(self.norm(tokens_BNC).mean(dim=1))


class HermesNetwork(nn.Module):
    """What both forms have in common: `forward` as released, and its two halves."""

    mod_out: ModalityClassifier | None

    def begin(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return the features that no prior has met, finest first."""
        raise NotImplementedError

    def finish(self, features: Sequence[Tensor], tasks: Tensor, modalities: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the logits of the tasks asked, auxiliary ones last, and the posterior tokens of all levels."""
        raise NotImplementedError

    def forward(
        self, images_BCZYX: Tensor, task_idx: Sequence[Sequence[int]], modality_idx: Sequence[Sequence[int]]
    ) -> list[Tensor]:
        """Return the logits, the auxiliary logits if there are any, and the modality's.

        Args:
            images_BCZYX: of sizes that the scales divide.
            task_idx: rows of the task prior, a list per sample, all of one length; -1 is the null token.
            modality_idx: a row of the modality prior per sample.
        """
        tasks = torch.as_tensor(task_idx, device=images_BCZYX.device)
        modalities = torch.as_tensor(modality_idx, device=images_BCZYX.device).reshape(-1)
        logits, posteriors_BMC = self.finish(self.begin(images_BCZYX), tasks, modalities)
        if self.mod_out is None:
            return logits
        return [*logits, self.mod_out(posteriors_BMC[:, tasks.shape[1] :])]


class HermesMedFormer(HermesNetwork):
    """MedFormer whose tokens are joined by the priors at five levels."""

    def __init__(
        self,
        sizes: Sizes,
        *,
        channel_counts: Sequence[int],
        tasks: int,
        modalities: int,
        auxiliary: bool = True,
        modality_head: bool = True,
    ):
        super().__init__()
        self.inc = Stem(channel_counts, sizes.base, sizes.kernels_zyx[0], activation=sizes.activation)
        self.down1, self.down2, self.down3, self.down4 = (Down(sizes, level, LIST_LAYERS) for level in range(4))
        self.map_fusion = MapFusion(sizes, LIST_LAYERS)
        self.up1, self.up2, self.up3, self.up4 = (Up(sizes, level, LIST_LAYERS) for level in range(4, 8))
        met = (self.down2, self.down3, self.down4, self.up1, self.up2)
        for level, width in zip(met, sizes.widths[1:6], strict=True):
            level.prior_selection = PriorSelection(tasks=tasks, modalities=modalities, width=width)
        total = sum(sizes.widths[1:6])
        self.out_classifier = Classifier(total, sizes.base)
        self.aux_classifier = Classifier(total, sizes.widths[5]) if auxiliary else None
        self.mod_out = ModalityClassifier(total, modalities) if modality_head else None

    def begin(self, images_BCZYX: Tensor) -> list[Tensor]:
        x0 = self.inc(images_BCZYX)
        return [x0, self.down1.shrink(x0)]

    def finish(self, features: Sequence[Tensor], tasks: Tensor, modalities: Tensor) -> tuple[list[Tensor], Tensor]:
        def priors(level: Down | Up) -> Tensor:
            return level.get_submodule("prior_selection")(tasks, modalities)

        x0, x1 = features
        x2, map2, posterior2 = self.down2(x1, priors(self.down2))
        x3, map3, posterior3 = self.down3(x2, priors(self.down3))
        x4, map4, posterior4 = self.down4(x3, priors(self.down4))
        map2, map3, map4 = self.map_fusion([map2, map3, map4])
        x5, map5, posterior5 = self.up1.attend(x4, x3, map4, map3, priors(self.up1))
        x6, _, posterior6 = self.up2.attend(x5, x2, map5, map2, priors(self.up2))
        x_BCZYX = self.up4(self.up3(x6, x1), x0)
        posteriors_BMC = torch.cat([posterior2, posterior3, posterior4, posterior5, posterior6], dim=-1)
        tokens_BTC = posteriors_BMC[:, : tasks.shape[1]]
        logits = [self.out_classifier(x_BCZYX, tokens_BTC)]
        if self.aux_classifier is not None:
            logits.append(enlarged(self.aux_classifier(x6, tokens_BTC), x0.shape[2:]))
        return logits, posteriors_BMC


class CrossAttention(nn.Module):
    """Multi-head attention from queries to a source; heads are slower than the features of a head."""

    def __init__(self, width: int):
        super().__init__()
        self.heads = max(1, width // HEAD_WIDTH)
        inner = self.heads * min(HEAD_WIDTH, width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width)

    def forward(self, queries_BNC: Tensor, source_BMC: Tensor) -> Tensor:
        """Return what each query read, `BNC`."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q(queries_BNC), *self.to_kv(source_BMC).chunk(2, dim=-1))
        )
        return self.to_out(functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class PreNormPair(nn.Module):
    """Layer norms of queries and source in front of the attention."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.fn = CrossAttention(width)

    def forward(self, queries_BNC: Tensor, source_BMC: Tensor) -> Tensor:
        """Return what each query read."""
        return self.fn(self.norm1(queries_BNC), self.norm2(source_BMC))


class ExchangeBlock(nn.Module):
    """The priors ask the features, then the features ask the priors."""

    def __init__(self, width: int):
        super().__init__()
        self.prior_aggregate_block = PreNormPair(width)
        self.prior_ffn = PreNorm(width, Mlp(width, 4 * width, width), eps=1e-4)
        self.feat_aggregate_block = PreNormPair(width)
        self.feat_ffn = PreNorm(width, Mlp(width, 4 * width, width), eps=1e-4)

    def forward(self, priors_BMC: Tensor, features_BNC: Tensor) -> tuple[Tensor, Tensor]:
        """Return both, changed."""
        priors_BMC = priors_BMC + self.prior_aggregate_block(priors_BMC, features_BNC)
        priors_BMC = priors_BMC + self.prior_ffn(priors_BMC)
        features_BNC = features_BNC + self.feat_aggregate_block(features_BNC, priors_BMC)
        return priors_BMC, features_BNC + self.feat_ffn(features_BNC)


class PriorFusion(nn.Module):
    """The priors of one level and its exchange blocks."""

    def __init__(self, width: int, blocks: int, *, tasks: int, modalities: int):
        super().__init__()
        add_priors(self, tasks=tasks, modalities=modalities, width=width)
        self.attn_layers = nn.ModuleList(ExchangeBlock(width) for _ in range(blocks))

    def forward(self, x_BCZYX: Tensor, tasks: Tensor, modalities: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of the same shape and the posterior tokens."""
        priors_BMC, features_BNC = priors_of(self, tasks, modalities), to_tokens(x_BCZYX)
        for block in self.attn_layers:
            priors_BMC, features_BNC = block(priors_BMC, features_BNC)
        return to_volume(features_BNC, x_BCZYX.shape[2:]), priors_BMC


class UNetDown(nn.Module):
    """Max pooling and basic blocks, or a strided first block."""

    def __init__(
        self, inputs: int, width: int, kernel: Triple, scale: Triple, *, blocks: int, pool: bool, activation: str
    ):
        super().__init__()
        stride = (1, 1, 1) if pool else scale
        first = BasicBlock(inputs, width, kernel, activation=activation, stride=stride)
        others = [BasicBlock(width, width, kernel, activation=activation) for _ in range(blocks - 1)]
        self.conv = nn.Sequential(*([nn.MaxPool3d(scale)] if pool else []), first, *others)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features on the smaller grid."""
        return self.conv(x_BCZYX)


class UNetUp(nn.Module):
    """The skip and, after it, the up-sampled features; basic blocks."""

    def __init__(self, inputs: int, width: int, kernel: Triple, *, blocks: int, activation: str):
        super().__init__()
        self.conv = nn.Sequential(
            *(
                BasicBlock(inputs if number == 0 else width, width, kernel, activation=activation)
                for number in range(blocks)
            )
        )

    def forward(self, x_BCZYX: Tensor, skip_BCZYX: Tensor) -> Tensor:
        """Return features of the skip's size."""
        return self.conv(torch.cat([skip_BCZYX, enlarged(x_BCZYX, skip_BCZYX.shape[2:])], dim=1))


class HermesUNet(HermesNetwork):
    """Residual U-Net whose features meet the priors at five levels."""

    def __init__(
        self,
        *,
        base: int,
        channel_counts: Sequence[int],
        tasks: int,
        modalities: int,
        kernels_zyx: Sequence[Triple] = ((3, 3, 3),) * 5,
        scales_zyx: Sequence[Triple] = SCALES_ZYX,
        blocks: Sequence[int] = (2, 2, 2, 2, 2, 2, 2, 2),
        exchanges: Sequence[int] = (2, 2, 4, 2, 2),
        pool: bool = True,
        activation: str = "relu",
        modality_head: bool = True,
    ):
        super().__init__()
        w0, w1, w2, w3, w4 = (factor * base for factor in (1, 2, 4, 8, 10))
        k0, k1, k2, k3, k4 = kernels_zyx
        s1, s2, s3, s4 = scales_zyx

        def fusion(width: int, number: int) -> PriorFusion:
            return PriorFusion(width, exchanges[number], tasks=tasks, modalities=modalities)

        self.inc = Stem(channel_counts, w0, k0, activation=activation)
        self.down1 = UNetDown(w0, w1, k1, s1, blocks=blocks[0], pool=pool, activation=activation)
        self.down2 = UNetDown(w1, w2, k2, s2, blocks=blocks[1], pool=pool, activation=activation)
        self.prior_init_fuse_2 = fusion(w2, 0)
        self.down3 = UNetDown(w2, w3, k3, s3, blocks=blocks[2], pool=pool, activation=activation)
        self.prior_init_fuse_3 = fusion(w3, 1)
        self.down4 = UNetDown(w3, w4, k4, s4, blocks=blocks[3], pool=pool, activation=activation)
        self.prior_init_fuse_4 = fusion(w4, 2)
        self.up1 = UNetUp(w4 + w3, w3, k3, blocks=blocks[4], activation=activation)
        self.prior_fuse_5 = fusion(w3, 3)
        self.up2 = UNetUp(w3 + w2, w2, k2, blocks=blocks[5], activation=activation)
        self.prior_fuse_6 = fusion(w2, 4)
        self.up3 = UNetUp(w2 + w1, w1, k1, blocks=blocks[6], activation=activation)
        self.up4 = UNetUp(w1 + w0, w0, k0, blocks=blocks[7], activation=activation)
        total = 2 * (w2 + w3) + w4
        self.out = Classifier(total, w0)
        self.mod_out = ModalityClassifier(total, modalities) if modality_head else None

    def begin(self, images_BCZYX: Tensor) -> list[Tensor]:
        x0 = self.inc(images_BCZYX)
        x1 = self.down1(x0)
        return [x0, x1, self.down2(x1)]

    def finish(self, features: Sequence[Tensor], tasks: Tensor, modalities: Tensor) -> tuple[list[Tensor], Tensor]:
        x0, x1, x2 = features
        x2, posterior2 = self.prior_init_fuse_2(x2, tasks, modalities)
        x3, posterior3 = self.prior_init_fuse_3(self.down3(x2), tasks, modalities)
        x4, posterior4 = self.prior_init_fuse_4(self.down4(x3), tasks, modalities)
        x5, posterior5 = self.prior_fuse_5(self.up1(x4, x3), tasks, modalities)
        x6, posterior6 = self.prior_fuse_6(self.up2(x5, x2), tasks, modalities)
        x_BCZYX = self.up4(self.up3(x6, x1), x0)
        posteriors_BMC = torch.cat([posterior2, posterior3, posterior4, posterior5, posterior6], dim=-1)
        return [self.out(x_BCZYX, posteriors_BMC[:, : tasks.shape[1]])], posteriors_BMC


class HermesOriginal(SegmentationModel):
    """Asks the network for the classes of one data set, with the data set's modality."""

    activation = "sigmoid"
    scale_rule = "equal"

    def __init__(self, tasks: TaskSet, spec: NetworkSpec, *, form: str, share_names: bool):
        super().__init__(tasks, spec)
        self.channels_of, classes = class_channels(tasks, share_names=share_names)
        self.modalities = sorted({task.modality for task in tasks})
        known: dict[str, Any] = {
            "channel_counts": tasks.channel_counts,
            "tasks": classes,
            "modalities": len(self.modalities),
        }
        self.network: HermesNetwork
        if form == "unet":
            self.network = HermesUNet(base=spec.base_features, modality_head=False, **known)
        else:
            self.network = HermesMedFormer(hermes_sizes(spec), modality_head=False, **known)

    def encode(self, images_BCZYX: Tensor) -> tuple[list[Tensor], tuple[int, ...]]:
        """Return the features that no prior has met, and the size of the image."""
        size_zyx = tuple(images_BCZYX.shape[2:])
        padded_zyx = padded_size_zyx(size_zyx, (16, 16, 16))
        ends = [
            part for size, padded in zip(size_zyx[::-1], padded_zyx[::-1], strict=True) for part in (0, padded - size)
        ]
        return self.network.begin(functional.pad(images_BCZYX, ends)), size_zyx

    def decode(self, features: tuple[list[Tensor], tuple[int, ...]], task: Task) -> list[Tensor]:
        """Return `logits_BKZYX`, and the auxiliary ones: zeros for background, then the classes of the task."""
        self.tasks.index(task)
        begun, (z, y, x) = features
        batch, device = len(begun[0]), begun[0].device
        asked = on_device(self.channels_of[task.name], device).expand(batch, -1)
        modalities = torch.full((batch,), self.modalities.index(task.modality), device=device)
        logits, _ = self.network.finish(begun, asked, modalities)
        cropped = [each[:, :, :z, :y, :x] for each in logits]
        return [torch.cat([torch.zeros_like(each[:, :1]), each], dim=1) for each in cropped]


def hermes_sizes(spec: NetworkSpec) -> Sizes:
    """Return the published sizes of the MedFormer form, scaled by the base width of the experiment."""
    return replace(sizes_for(spec), convolutions=(2, 0, 0, 0, 0, 0, 2, 2), attentions=(0, 2, 4, 8, 4, 2, 0, 0))


def from_official(
    state_dict: Mapping[str, Tensor],
    *,
    num_heads: Sequence[int] = PUBLISHED_HEADS,
    fusion_heads: int = PUBLISHED_FUSION_HEADS,
    scale: Sequence[Sequence[int]] = SCALES_ZYX,
    act: str = "relu",
    **arch: object,
) -> HermesNetwork:
    """Return the network with these weights, in evaluation mode; the names of the tensors tell which form it is.

    Args:
        state_dict: of the released network; it may be wrapped in a checkpoint.
        num_heads: of the MedFormer form: heads of the four levels down and the four up.
        fusion_heads: of the MedFormer form: heads where the maps of all levels meet.
        scale: down-sampling z, y, x of each level.
        act: 'relu' or 'gelu'.
        arch: further arguments of the original's constructor. Shapes tell all sizes; the rest has to be as released.

    Raises:
        InputError: for a missing, unexpected or reshaped tensor, and for an argument that asks for another network.
    """
    own, basic = ("num_heads", "fusion_heads", "scale", "act"), "BasicBlock"
    check_arguments(arch, WHERE, named=own, conv_block=basic, block=basic, proj_type="depthwise", norm="in")
    check_activation(act, WHERE)
    state = tensors_of(state_dict, WHERE)
    shapes = shapes_of(state)
    priors = [name for name in shapes if name.endswith(".task_prior")]
    modality_priors = [name for name in shapes if name.endswith(".modality_prior")]
    known: dict[str, Any] = {
        "channel_counts": [majority(shapes, ["inc.conv1.weight"], inputs_of, where=WHERE)],
        "tasks": majority(shapes, priors or ["task_prior"], outputs_of, where=WHERE) - 1,
        "modalities": majority(shapes, modality_priors or ["modality_prior"], outputs_of, where=WHERE),
        "modality_head": any(name.startswith("mod_out.") for name in shapes),
    }
    network: HermesNetwork
    if any(name.startswith("prior_init_fuse_2.") for name in shapes):
        network = HermesUNet(**_unet_sizes(shapes), scales_zyx=scales_of(scale, WHERE), activation=act, **known)
    else:
        sizes = measured(shapes, WHERE, heads=num_heads, fusion_heads=fusion_heads, scales_zyx=scale, activation=act)
        network = HermesMedFormer(sizes, auxiliary=has_auxiliary(shapes), **known)
    load_strictly(network, state, WHERE)
    return network.eval()


def _unet_sizes(shapes: Mapping[str, Shape]) -> dict:
    """Return the arguments of `HermesUNet` that shapes tell."""
    down, up = [f"down{number}" for number in range(1, 5)], [f"up{number}" for number in range(1, 5)]
    pool = not any(name.startswith("down1.conv.0.") for name in shapes)
    counts = [count_of(shapes, rf"{level}\.conv\.(\d{{1,3}})\.") for level in [*down, *up]]
    fusions = ["prior_init_fuse_2", "prior_init_fuse_3", "prior_init_fuse_4", "prior_fuse_5", "prior_fuse_6"]
    first = ["inc.conv1.weight", "inc.conv2.conv1.conv.weight", "inc.conv2.conv2.conv.weight"]
    kernels = [majority(shapes, first, kernel_zyx, where=WHERE)]
    for level in down:
        pattern = re.compile(rf"{level}\.conv\.\d+\.conv[12]\.conv\.weight")
        names = [name for name in shapes if pattern.fullmatch(name)]
        kernels.append(majority(shapes, names or [f"{level}.conv.1.conv1.conv.weight"], kernel_zyx, where=WHERE))
    return {
        "base": majority(shapes, first, outputs_of, where=WHERE),
        "kernels_zyx": kernels,
        "blocks": [count - 1 if pool and number < 4 else count for number, count in enumerate(counts)],
        "exchanges": [count_of(shapes, rf"{fusion}\.attn_layers\.(\d{{1,3}})\.") for fusion in fusions],
        "pool": pool,
    }


def build(tasks: TaskSet, spec: NetworkSpec, *, form: str = "medformer", share_names: bool = False) -> HermesOriginal:
    """Return the network for all tasks of `tasks`; an unknown form raises `InputError`."""
    if form not in FORMS:
        raise input_error(
            "option form of hermes_original",
            found=repr(form),
            expected="medformer or unet",
            fix=suggestion(form, FORMS),
        )
    return HermesOriginal(tasks, spec, form=form, share_names=share_names)
