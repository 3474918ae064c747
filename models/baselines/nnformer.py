"""nnFormer as released for BTCV: shifted windows of attention in encoder and decoder, skips asked by attention.

Axis legend: B batch, W windows of all samples, N tokens of a window, H heads, C channel, K class, Z Y X space. Written
from the facts of the released network (Zhou et al., IEEE TIP 2023). Features have their channels last between
convolutions. Modules have the names of the released state dict, so that it loads as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from monai.networks.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional

from models.blocks.own_network import PerTaskModel, padded_size_zyx, the_task
from models.interface import NetworkSpec
from models.weights.official import check_arguments, count_of, kernel_zyx, majority, shapes_of, whole_numbers
from models.weights.official import inputs as inputs_of
from models.weights.official import outputs as outputs_of
from models.weights.reading import load_strictly, tensors_of
from segbench.core.errors import input_error
from segbench.core.task import TaskSet

CARD = {
    "title": "nnFormer",
    "kind": "single_task",
    "citation": "Zhou et al., nnFormer: Volumetric Medical Image Segmentation via a 3D Transformer, IEEE Transactions "
    "on Image Processing 2023",
    "url": "https://github.com/282857341/nnFormer",
    "licence": "Apache-2.0",
    "original_licence": "MIT",
    "fidelity": "numerical",
    "deviations": [
        "widths follow the config's base; with base 32 they are the original's 192 to 1536, with 6 to 48 heads",
        "windows are those of the experiment's patch size; the released network fixes them for 64x128x128",
        "input sizes that are no multiple of 16, 32, 32 are padded by their border and cropped back",
        "starts from random weights; the released trainer loads pre-trained ones",
        "under the equal recipe the learning rate is that of all models",
    ],
    "channels": "any",
    "patch_multiple": [16, 32, 32],
    "options": {
        "drop_path": {
            "default": 0.2,
            "at_least": 0,
            "below": 1,
            "help": "stochastic depth of the last block; earlier blocks have less",
        }
    },
    "encoder_keys": ["network.model_down."],
    "backbone": "own",
    "published_recipe": {
        "source": "282857341/nnFormer, the authors' trainer",
        "keys": {"optimiser": "sgd", "initial_learning_rate": 0.01, "drop_path": 0.2},
        "not_taken": [
            "the released trainer loads pre-trained weights; the port of the authors of MedNeXt uses AdamW with 5e-5"
        ],
    },
}
OFFICIAL = "nnformer_official"
WHERE = "official nnFormer weights"
Triple = tuple[int, int, int]
PATCH_ZYX = (2, 4, 4)
PATCH_MULTIPLE = (16, 32, 32)
HEADS = (6, 12, 24, 48)
WINDOWS = (4, 4, 8, 4)
DEPTH = 2
DIFFERENT_REGION = -100.0  # added to the score of two tokens that the shift has brought together


def windows_of(size_zyx: Sequence[int], window: int) -> tuple[int, bool]:
    """Return the window of a stage of this size and whether its blocks may be shifted.

    A stage whose smallest side is not above the window has one of that side, and no shift.
    """
    smallest = min(size_zyx)
    return (window, True) if smallest > window else (smallest, False)


def to_windows(x_BZYXC: Tensor, window: int) -> Tensor:
    """Return `tokens_WNC`; sizes must be multiples of the window."""
    batch, *size_zyx, channels = x_BZYXC.shape
    z, y, x = (size // window for size in size_zyx)
    blocks = x_BZYXC.view(batch, z, window, y, window, x, window, channels)
    return blocks.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, window**3, channels)


def from_windows(tokens_WNC: Tensor, window: int, size_zyx: Sequence[int]) -> Tensor:
    """Return `features_BZYXC` of the given size; the inverse of `to_windows`."""
    z, y, x = (size // window for size in size_zyx)
    blocks = tokens_WNC.view(-1, z, y, x, window, window, window, tokens_WNC.shape[-1])
    return blocks.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, *size_zyx, tokens_WNC.shape[-1])


def region_mask(size_zyx: Sequence[int], window: int, device: torch.device) -> Tensor:
    """Return what to add to scores in shifted windows, `mask_WNN` of one sample, on the padded size."""
    regions = torch.zeros(1, 1, 1, 1, 1, device=device)
    for axis, size in enumerate(size_zyx, start=1):
        place = torch.arange(size, device=device)
        region = (place >= size - window).float() + (place >= size - window // 2).float()
        regions = 3 * regions + region.view([-1 if each == axis else 1 for each in range(5)])
    tokens_WN = to_windows(regions, window)[..., 0]
    return torch.where(tokens_WN[:, :, None] == tokens_WN[:, None], 0.0, DIFFERENT_REGION)


class WindowAttention(nn.Module):
    """Attention within a window, with a bias by relative position; `skips`: queries come as they are."""

    def __init__(self, width: int, heads: int, window: int, *, skips: bool = False):
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 3, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        axes = [torch.arange(window)] * 3
        places_N3 = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
        z, y, x = (places_N3[:, None] - places_N3 + window - 1).unbind(-1)
        # the original's index: 3w - 1 where 2w - 1 squared was meant, so that some offsets have one bias together
        index_NN = z * (3 * window - 1) + y * (2 * window - 1) + x
        self.register_buffer("relative_position_index", index_NN, persistent=False)
        if skips:
            self.kv = nn.Linear(width, 2 * width)
        else:
            self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens_WNC: Tensor, mask_WNN: Tensor | None, skip_WNC: Tensor | None = None) -> Tensor:
        """Return the attended tokens, `WNC`; `mask_WNN` is that of one sample."""
        if skip_WNC is None:
            query, key, value = self.qkv(tokens_WNC).chunk(3, dim=-1)
        else:
            query, (key, value) = tokens_WNC, self.kv(skip_WNC).chunk(2, dim=-1)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value)
        )  # heads are slower than the features of a head
        scores_WHNN = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        index_NN = cast(Tensor, self.relative_position_index)
        scores_WHNN = scores_WHNN + self.relative_position_bias_table[index_NN].permute(2, 0, 1)
        if mask_WNN is not None:
            scores_WHNN = (scores_WHNN.unflatten(0, (-1, len(mask_WNN))) + mask_WNN[:, None]).flatten(0, 1)
        return self.proj((scores_WHNN.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with GELU between, four times as wide inside."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-normalised attention in windows, then the position-wise network; with a skip it asks the skip."""

    def __init__(
        self, width: int, heads: int, window: int, *, shifted: bool = False, skips: bool = False, drop_path: float
    ):
        super().__init__()
        self.window = window
        self.shift = window // 2 if shifted else 0
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window, skips=skips)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, x_BZYXC: Tensor, skip_BZYXC: Tensor | None = None) -> Tensor:
        """Return features of the same shape; padding at the far end takes part as keys and values."""
        size_zyx = x_BZYXC.shape[1:4]
        tokens_WNC = self._cut(self.norm1(x_BZYXC))
        skip_WNC = None if skip_BZYXC is None else self._cut(self.norm1(skip_BZYXC))
        padded_zyx = [size + -size % self.window for size in size_zyx]
        mask_WNN = region_mask(padded_zyx, self.window, x_BZYXC.device) if self.shift else None
        attended = from_windows(self.attn(tokens_WNC, mask_WNN, skip_WNC), self.window, padded_zyx)
        if self.shift:
            attended = attended.roll((self.shift,) * 3, dims=(1, 2, 3))
        z, y, x = size_zyx
        residual = x_BZYXC if skip_BZYXC is None else x_BZYXC + skip_BZYXC
        x_BZYXC = residual + self.drop_path(attended[:, :z, :y, :x])
        return x_BZYXC + self.drop_path(self.mlp(self.norm2(x_BZYXC)))

    def _cut(self, x_BZYXC: Tensor) -> Tensor:
        ends = [end for size in reversed(x_BZYXC.shape[1:4]) for end in (0, -size % self.window)]
        x_BZYXC = functional.pad(x_BZYXC, [0, 0, *ends])
        if self.shift:
            x_BZYXC = x_BZYXC.roll((-self.shift,) * 3, dims=(1, 2, 3))
        return to_windows(x_BZYXC, self.window)


def _last(x_BCZYX: Tensor) -> Tensor:
    return x_BCZYX.movedim(1, -1)


def _first(x_BZYXC: Tensor) -> Tensor:
    return x_BZYXC.movedim(-1, 1)


class Project(nn.Module):
    """A strided 3x3x3 convolution and another, with GELU and norm after each, or after the first only."""

    def __init__(self, inputs: int, outputs: int, stride_zyx: Triple, *, last: bool):
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride=stride_zyx, padding=1)
        self.norm1 = nn.LayerNorm(outputs)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, padding=1)
        self.norm2 = None if last else nn.LayerNorm(outputs)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features with channels first."""
        x_BCZYX = self.conv2(_first(self.norm1(_last(functional.gelu(self.conv1(x_BCZYX))))))
        return x_BCZYX if self.norm2 is None else _first(self.norm2(_last(functional.gelu(x_BCZYX))))


class PatchEmbed(nn.Module):
    """Two projections that shrink the image to one token per patch."""

    def __init__(self, channels: int, width: int, patch_zyx: Triple):
        super().__init__()
        z, y, x = patch_zyx
        self.proj1 = Project(channels, width // 2, (z, y // 2, x // 2), last=False)
        self.proj2 = Project(width // 2, width, (z // 2, y // 2, x // 2), last=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, images_BCZYX: Tensor) -> Tensor:
        """Return features with channels last."""
        return self.norm(_last(self.proj2(self.proj1(images_BCZYX))))


class Merge(nn.Module):
    """GELU, norm and a strided convolution to half the grid and twice the width."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.reduction = nn.Conv3d(width, 2 * width, 3, stride=2, padding=1)

    def forward(self, x_BZYXC: Tensor) -> Tensor:
        """Return features with channels last."""
        return _last(self.reduction(_first(self.norm(functional.gelu(x_BZYXC)))))


class Upsample(nn.Module):
    """Norm and a transposed convolution to twice the grid and half the width."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(2 * width)
        self.up = nn.ConvTranspose3d(2 * width, width, 2, stride=2)

    def forward(self, x_BZYXC: Tensor) -> Tensor:
        """Return features with channels last."""
        return _last(self.up(_first(self.norm(x_BZYXC))))


class EncoderStage(nn.Module):
    """Blocks, every other one shifted, and the way to the next stage."""

    def __init__(
        self, width: int, heads: int, window: int, *, may_shift: bool, drop_paths: Sequence[float], last: bool
    ):
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                Block(width, heads, window, shifted=may_shift and number % 2 == 1, drop_path=rate)
                for number, rate in enumerate(drop_paths)
            )
        )
        self.downsample = None if last else Merge(width)

    def forward(self, x_BZYXC: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stage's result and what the next stage starts from."""
        x_BZYXC = self.blocks(x_BZYXC)
        return x_BZYXC, x_BZYXC if self.downsample is None else self.downsample(x_BZYXC)


class Encoder(nn.Module):
    """Embedding and stages; returns their normalised results."""

    def __init__(self, embed: PatchEmbed, stages: Sequence[EncoderStage], widths: Sequence[int]):
        super().__init__()
        self.patch_embed = embed
        self.layers = nn.ModuleList(stages)
        for number, width in enumerate(widths):
            self.add_module(f"norm{number}", nn.LayerNorm(width))

    def forward(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return the features of every stage with channels last, finest first."""
        x_BZYXC, features = self.patch_embed(images_BCZYX), []
        for number, stage in enumerate(self.layers):
            result_BZYXC, x_BZYXC = stage(x_BZYXC)
            features.append(self.get_submodule(f"norm{number}")(result_BZYXC))
        return features


class DecoderStage(nn.Module):
    """Up-sampling, a block that asks the skip, and shifted blocks."""

    def __init__(self, width: int, heads: int, window: int, *, may_shift: bool, drop_paths: Sequence[float]):
        super().__init__()
        self.Upsample = Upsample(width)
        self.blocks = nn.ModuleList(
            Block(width, heads, window, shifted=may_shift and number > 0, skips=number == 0, drop_path=rate)
            for number, rate in enumerate(drop_paths)
        )

    def forward(self, x_BZYXC: Tensor, skip_BZYXC: Tensor) -> Tensor:
        """Return features of the skip's shape."""
        first, *others = self.blocks
        x_BZYXC = first(self.Upsample(x_BZYXC), skip_BZYXC)
        for block in others:
            x_BZYXC = block(x_BZYXC)
        return x_BZYXC


class Decoder(nn.Module):
    """Decoder stages, the finest first in the list."""

    def __init__(self, stages: Sequence[DecoderStage]):
        super().__init__()
        self.layers = nn.ModuleList(stages)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the features of every decoder stage, finest first."""
        *skips, x_BZYXC = features
        decoded = []
        for stage, skip_BZYXC in zip(reversed(self.layers), reversed(skips), strict=True):
            x_BZYXC = stage(x_BZYXC, skip_BZYXC)
            decoded.append(x_BZYXC)
        return decoded[::-1]


class Expand(nn.Module):
    """Transposed convolution from a token to the classes of its patch."""

    def __init__(self, width: int, classes: int, patch_zyx: Triple):
        super().__init__()
        self.up = nn.ConvTranspose3d(width, classes, patch_zyx, stride=patch_zyx)

    def forward(self, x_BZYXC: Tensor) -> Tensor:
        """Return `logits_BKZYX`."""
        return self.up(_first(x_BZYXC))


class NNFormer(nn.Module):
    """Encoder, decoder and one head per decoder stage."""

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        width: int,
        crop_zyx: Sequence[int],
        patch_zyx: Triple = PATCH_ZYX,
        heads: Sequence[int] = HEADS,
        windows: Sequence[int] = WINDOWS,
        decoder_windows: Sequence[int] = WINDOWS[:-1],
        depths: Sequence[int] = (DEPTH,) * 4,
        decoder_depths: Sequence[int] = (DEPTH,) * 3,
        decoded: int = 3,
        drop_path: float = 0.2,
    ):
        super().__init__()
        levels = len(depths)
        widths = [width * 2**level for level in range(levels)]
        grid = [size // patch for size, patch in zip(crop_zyx, patch_zyx, strict=True)]
        grids = [[size // 2**level for size in grid] for level in range(levels)]
        fitted = [windows_of(size_zyx, window) for size_zyx, window in zip(grids, windows, strict=True)]
        decoder_fitted = [
            windows_of(size_zyx, window) for size_zyx, window in zip(grids, decoder_windows, strict=False)
        ]
        encoder_rates = _rising(drop_path, depths)
        decoder_rates = _rising(drop_path, decoder_depths)
        self.model_down = Encoder(
            PatchEmbed(channels, width, patch_zyx),
            [
                EncoderStage(
                    widths[level],
                    heads[level],
                    fitted[level][0],
                    may_shift=fitted[level][1],
                    drop_paths=encoder_rates[level],
                    last=level == levels - 1,
                )
                for level in range(levels)
            ],
            widths,
        )
        self.decoder = Decoder(
            [
                DecoderStage(
                    widths[level],
                    heads[level],
                    decoder_fitted[level][0],
                    may_shift=decoder_fitted[level][1],
                    drop_paths=decoder_rates[level],
                )
                for level in range(levels - 1)
            ]
        )
        self.final = nn.ModuleList(Expand(widths[level], classes, patch_zyx) for level in range(decoded))

    def forward(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return logits at full resolution and, coarser, at the decoder's other stages."""
        decoded = self.decoder(self.model_down(images_BCZYX))
        return [expand(x_BZYXC) for expand, x_BZYXC in zip(self.final, decoded, strict=False)]


def _rising(largest: float, depths: Sequence[int]) -> list[list[float]]:
    """Return the drop path of every block, rising evenly from 0 to the largest."""
    total = max(1, sum(depths) - 1)
    rates = iter([largest * number / total for number in range(sum(depths))])
    return [[next(rates) for _ in range(depth)] for depth in depths]


def from_official(
    state_dict: Mapping[str, Tensor], *, crop_size: Sequence[int] = (64, 128, 128), **arch: object
) -> NNFormer:
    """Return the network with these weights, in evaluation mode.

    Args:
        state_dict: of the released network; it may be wrapped in a checkpoint.
        crop_size: patch size in voxels (z, y, x) of the original's constructor, by default the released network's. It
            decides which stages have shifted windows: those whose smallest side is above the window.
        arch: further arguments of the original's constructor; shapes tell all of them.

    Raises:
        InputError: for a missing, unexpected or reshaped tensor, and for windows that do not fit `crop_size`.
    """
    check_arguments(arch, WHERE, named=["crop_size"])
    crop_zyx = whole_numbers(crop_size, (3,), f"{WHERE}, crop_size", "three whole numbers")
    state = {
        name: tensor
        for name, tensor in tensors_of(state_dict, WHERE).items()
        if not name.endswith(".relative_position_index")
    }
    shapes = shapes_of(state)

    def windows_in(stage: str) -> int:
        return majority(
            shapes,
            [f"{stage}.blocks.{block}.attn.relative_position_bias_table" for block in range(2)],
            lambda shape: round((round(shape[0] ** (1 / 3)) + 1) / 2),
            where=WHERE,
        )

    def heads_in(stage: str) -> int:
        return majority(shapes, [f"{stage}.blocks.0.attn.relative_position_bias_table"], inputs_of, where=WHERE)

    levels = count_of(shapes, r"model_down\.layers\.(\d{1,2})\.")
    stages = [f"model_down.layers.{level}" for level in range(levels)]
    patch_zyx = majority(shapes, ["final.0.up.weight"], kernel_zyx, where=WHERE)
    windows = [windows_in(stage) for stage in stages]
    grid = [size // edge for size, edge in zip(crop_zyx, patch_zyx, strict=True)]
    for level, window in enumerate(windows):
        size_zyx = [size // 2**level for size in grid]
        if window > min(size_zyx):
            raise input_error(
                WHERE,
                found=f"window {window} in stage {level}",
                expected=f"at most {min(size_zyx)}, the smallest side of {size_zyx} at crop_size {crop_zyx}",
                fix="give the crop_size that the network was built with",
            )
    network = NNFormer(
        channels=majority(shapes, ["model_down.patch_embed.proj1.conv1.weight"], inputs_of, where=WHERE),
        classes=majority(shapes, ["final.0.up.bias"], outputs_of, where=WHERE),
        width=majority(
            shapes, ["model_down.patch_embed.norm.weight", "model_down.patch_embed.norm.bias"], outputs_of, where=WHERE
        ),
        crop_zyx=crop_zyx,
        patch_zyx=patch_zyx,
        heads=[heads_in(stage) for stage in stages],
        windows=windows,
        decoder_windows=[windows_in(f"decoder.layers.{level}") for level in range(levels - 1)],
        depths=[count_of(shapes, rf"model_down\.layers\.{level}\.blocks\.(\d{{1,3}})\.") for level in range(levels)],
        decoder_depths=[
            count_of(shapes, rf"decoder\.layers\.{level}\.blocks\.(\d{{1,3}})\.") for level in range(levels - 1)
        ],
        decoded=count_of(shapes, r"final\.(\d{1,2})\."),
    )
    load_strictly(network, state, WHERE)
    return network.eval()


def build(tasks: TaskSet, spec: NetworkSpec, *, drop_path: float = 0.2) -> PerTaskModel:
    """Return the network for the only task of `tasks`; first width 192 at the base width 32."""
    task = the_task(tasks)
    network = NNFormer(
        channels=task.num_channels,
        classes=task.num_classes,
        width=HEADS[0] * spec.base_features,
        crop_zyx=padded_size_zyx(spec.patch_size_zyx, PATCH_MULTIPLE),
        drop_path=drop_path,
    )
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=PATCH_MULTIPLE, scale_rule="halving")
