"""Parts of MedFormer, which Hermes shares: features and a few tokens attend to each other in both directions.

Axis legend: B batch, H heads, D features of a head, C channel, N tokens, V voxels, Z Y X space. Written from the facts
of the released networks (Gao et al., MedFormer, arXiv 2203.00131, and Hermes, CVPR 2024). Modules have the names of
the released state dicts. Instance norms have no parameters; tokens are a list here, where MedFormer calls them a map.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from models.blocks.attention import to_tokens, to_volume
from models.blocks.instance_norm import instance_norm
from models.interface import NetworkSpec
from models.weights.official import Shape, count_of, kernel_zyx, majority, whole_numbers
from models.weights.official import outputs as outputs_of
from segbench.core.errors import input_error

Triple = tuple[int, int, int]
UNIT_EPS = 1e-4  # of the instance norm in a pre-activation unit
NORM_EPS = 1e-5  # of the others
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}
DOWN, UP = ("down1", "down2", "down3", "down4"), ("up1", "up2", "up3", "up4")
LEVELS = (*DOWN, *UP)
KERNEL_OF_LEVEL = (1, 2, 3, 4, 3, 2, 1, 0)  # which of the five kernels a level has; the stem has the first


@dataclass(frozen=True)
class Sizes:
    """Sizes of a MedFormer; lists have a value for each of `LEVELS`, kernels one for the stem and each scale."""

    base: int
    widths: Sequence[int]
    convolutions: Sequence[int]
    attentions: Sequence[int]
    heads: Sequence[int]
    tokens: int
    fusion_width: int
    fusion_depth: int
    fusion_heads: int
    expansion: int
    kernels_zyx: Sequence[Triple]
    scales_zyx: Sequence[Triple]
    activation: str = "relu"

    @property
    def downsampling_zyx(self) -> Triple:
        """Product of the scales per axis."""
        z, y, x = (math.prod(scale[axis] for scale in self.scales_zyx) for axis in range(3))
        return z, y, x


PUBLISHED_HEADS = (1, 4, 8, 10, 8, 4, 1, 1)
PUBLISHED_FUSION_HEADS = 10


def sizes_for(spec: NetworkSpec) -> Sizes:
    """Return the published sizes, scaled by the base width of the experiment; published is 32."""
    base = spec.base_features
    return Sizes(
        base=base,
        widths=[factor * base for factor in (2, 4, 8, 10, 8, 4, 2, 1)],
        convolutions=(2, 1, 0, 0, 0, 1, 2, 2),
        attentions=(0, 1, 4, 6, 4, 1, 0, 0),
        heads=PUBLISHED_HEADS,
        tokens=4**3,
        fusion_width=10 * base,
        fusion_depth=2,
        fusion_heads=PUBLISHED_FUSION_HEADS,
        expansion=4,
        kernels_zyx=((3, 3, 3),) * 5,
        scales_zyx=((2, 2, 2),) * 4,
    )


def measured(
    shapes: Mapping[str, Shape],
    where: str,
    *,
    heads: Sequence[int],
    fusion_heads: int,
    scales_zyx: Sequence[Sequence[int]],
    activation: str,
) -> Sizes:
    """Return the sizes that shapes tell, completed by what they cannot tell.

    Raises InputError when a size can be inferred from no tensor, or when heads or scales do not fit the widths.
    """

    def inferred(names: Sequence[str], tell: Callable = outputs_of):
        return majority(shapes, names, tell, where=where)

    kernels = [inferred(["inc.conv1.weight", "inc.conv2.conv1.conv.weight"], kernel_zyx)]
    kernels += [inferred([f"{level}.patch_merging.reduction.depthwise.weight"], kernel_zyx) for level in DOWN]
    widths = [inferred([f"{level}.patch_merging.reduction.pointwise.weight"]) for level in DOWN]
    base = inferred(["inc.conv1.weight", "inc.conv2.conv1.conv.weight", "inc.conv2.conv2.conv.weight"])
    attentions = [count_of(shapes, rf"{level}\.trans_blocks\.blocks\.(\d{{1,3}})\.") for level in LEVELS]
    contracted = [f"{level}.trans_blocks.blocks.0.feedforward.pointwise.conv.weight" for level in LEVELS]
    sizes = Sizes(
        base=base,
        widths=[*widths, widths[2], widths[1], widths[0], base],
        convolutions=[count_of(shapes, rf"{level}\.conv_blocks\.(\d{{1,3}})\.") for level in LEVELS],
        attentions=attentions,
        heads=whole_numbers(heads, (len(LEVELS),), f"{where}, num_heads", f"{len(LEVELS)} whole numbers"),
        tokens=inferred([f"{level}.map_gen.semantic_proj.weight" for level in DOWN]),
        fusion_width=inferred([f"map_fusion.in_proj.{number}.weight" for number in range(3)]),
        fusion_depth=count_of(shapes, r"map_fusion\.fusion\.layers\.(\d{1,3})\."),
        fusion_heads=whole_numbers(fusion_heads, (), f"{where}, fusion_heads", "a whole number"),
        expansion=inferred(contracted, lambda shape: shape[1] // shape[0]),
        kernels_zyx=kernels,
        scales_zyx=scales_of(scales_zyx, where),
        activation=activation,
    )
    _check(sizes, shapes, where)
    return sizes


def scales_of(given: object, where: str) -> list[Triple]:
    """Return the down-sampling of each level as the original's constructor has it; InputError for anything else."""
    return whole_numbers(given, (len(DOWN), 3), f"{where}, scale", f"{len(DOWN)} triples of whole numbers")


def _check(sizes: Sizes, shapes: Mapping[str, Shape], where: str) -> None:
    fix = "state num_heads, fusion_heads and scale as the network was built with"
    check_activation(sizes.activation, where)
    pairs = [(level, heads, width) for level, heads, width in zip(LEVELS, sizes.heads, sizes.widths, strict=True)]
    for level, heads, width in [*pairs, ("map_fusion", sizes.fusion_heads, sizes.fusion_width)]:
        if heads > width:
            raise input_error(where, found=f"{heads} heads in {level}", expected=f"1 to {width}", fix=fix)
    for level, before, scale in zip(DOWN, [sizes.base, *sizes.widths], sizes.scales_zyx, strict=False):
        merged = shapes.get(f"{level}.patch_merging.reduction.depthwise.weight")
        if merged and merged[0] != before * math.prod(scale):
            found, expected = f"scale {list(scale)} of {level}", f"sub-grids that give {merged[0]} of {before} channels"
            raise input_error(where, found=found, expected=expected, fix=fix)


def check_activation(name: str, where: str) -> None:
    """Raise InputError for an activation that is not re-implemented."""
    if name not in ACTIVATIONS:
        known = " or ".join(ACTIVATIONS)
        raise input_error(where, found=f"act = {name!r}", expected=known, fix="use weights of such a network")


def has_auxiliary(shapes: Mapping[str, Shape]) -> bool:
    """Tell whether the state dict holds an auxiliary output."""
    return any(re.match(r"aux_(out|classifier)\.", name) for name in shapes)


def same_padding(kernel: Triple) -> Triple:
    """Return the padding that keeps the size for an odd kernel."""
    z, y, x = kernel
    return z // 2, y // 2, x // 2


class Unit(nn.Module):
    """Instance norm, activation, convolution without bias."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Triple = (1, 1, 1),
        *,
        activation: str | None,
        stride: Triple = (1, 1, 1),
        groups: int = 1,
    ):
        super().__init__()
        self.activation = nn.Identity() if activation is None else ACTIVATIONS[activation]()
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride, same_padding(kernel), groups=groups, bias=False)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return the convolved features."""
        return self.conv(self.activation(instance_norm(x_BCZYX, eps=UNIT_EPS)))


class BasicBlock(nn.Module):
    """Two units and a shortcut, which is one more unit of the same kernel where the shape changes."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple, *, activation: str, stride: Triple = (1, 1, 1)):
        super().__init__()
        self.conv1 = Unit(inputs, outputs, kernel, activation=activation, stride=stride)
        self.conv2 = Unit(outputs, outputs, kernel, activation=activation)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or max(stride) > 1:
            self.shortcut = Unit(inputs, outputs, kernel, activation=activation, stride=stride)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features plus shortcut."""
        return self.conv2(self.conv1(x_BCZYX)) + self.shortcut(x_BCZYX)


class Stem(nn.Module):
    """A convolution to the base width and a basic block; each further channel count has a convolution of its own."""

    def __init__(self, channel_counts: Sequence[int], base: int, kernel: Triple, *, activation: str):
        super().__init__()
        first, *others = [
            nn.Conv3d(channels, base, kernel, padding=same_padding(kernel), bias=False) for channels in channel_counts
        ]
        self.conv1 = first
        self.others = nn.ModuleList(others)
        self.conv2 = BasicBlock(base, base, kernel, activation=activation)

    def forward(self, images_BCZYX: Tensor) -> Tensor:
        """Return features at full resolution; the convolution is chosen by the input's channel count."""
        for convolution in (self.conv1, *self.others):
            if convolution.in_channels == images_BCZYX.shape[1]:
                return self.conv2(convolution(images_BCZYX))
        raise input_error(
            "input", found=f"{images_BCZYX.shape[1]} channels", expected="a channel count of the tasks", fix="check it"
        )


class Separable(nn.Module):
    """Depth-wise and point-wise convolution without bias."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple):
        super().__init__()
        self.depthwise = nn.Conv3d(inputs, inputs, kernel, padding=same_padding(kernel), groups=inputs, bias=False)
        self.pointwise = nn.Conv3d(inputs, outputs, 1, bias=False)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features of the same size."""
        return self.pointwise(self.depthwise(x_BCZYX))


class PatchMerging(nn.Module):
    """Concatenates the strided sub-grids over channels, normalises and reduces them."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple, scale: Triple):
        super().__init__()
        self.scale = scale
        self.reduction = Separable(math.prod(scale) * inputs, outputs, kernel)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features on the smaller grid; sizes must be multiples of the scale."""
        a, b, c = self.scale
        merged = rearrange(x_BCZYX, "B C (z a) (y b) (x c) -> B (a b c C) z y x", a=a, b=b, c=c)
        return self.reduction(instance_norm(merged, eps=NORM_EPS))


class MBConv(nn.Module):
    """Inverted bottleneck with squeeze and excitation; the residual is added outside."""

    def __init__(self, width: int, kernel: Triple, *, expansion: int, activation: str):
        super().__init__()
        inner = expansion * width
        self.expand_proj: nn.Module = nn.Identity()
        if expansion > 1:
            self.expand_proj = Unit(width, inner, activation=activation)
        self.depthwise = Unit(inner, inner, kernel, activation=activation, groups=inner)
        self.se = SqueezeExcitation(inner)
        self.pointwise = Unit(inner, width, activation=None)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features of the same shape."""
        return self.pointwise(self.se(self.depthwise(self.expand_proj(x_BCZYX))))


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate made from the means of all channels."""

    def __init__(self, width: int):
        super().__init__()
        self.excitation = nn.Sequential(
            nn.Conv3d(width, width // 4, 1), nn.ReLU(), nn.Conv3d(width // 4, width, 1), nn.Sigmoid()
        )

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return the scaled features."""
        return x_BCZYX * self.excitation(x_BCZYX.mean((2, 3, 4), keepdim=True))


class MapLinear(nn.Conv3d):
    """A linear layer on tokens without bias, whose weight is stored as that of a 1x1x1 convolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 1, bias=False)

    def forward(self, tokens_BNC: Tensor) -> Tensor:
        """Return tokens of `outputs` channels."""
        return functional.linear(tokens_BNC, self.weight.flatten(1))


class MapNorm(nn.Module):
    """Instance norm of a map of tokens: each channel over all tokens, without parameters."""

    def __init__(self, width: int):
        super().__init__()

    def forward(self, tokens_BNC: Tensor) -> Tensor:
        """Return the normalised tokens."""
        return instance_norm(tokens_BNC.transpose(1, 2), eps=NORM_EPS).transpose(1, 2)


class TokenLinear(nn.Linear):
    """A linear layer on tokens without bias."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, bias=False)


class TokenNorm(nn.LayerNorm):
    """Layer norm of each token."""

    def __init__(self, width: int):
        super().__init__(width, eps=NORM_EPS)


@dataclass(frozen=True)
class TokenLayers:
    """What a network uses for its tokens, and the eps of the layer norms where the tokens of all levels meet."""

    linear: Callable[[int, int], nn.Module]
    norm: Callable[[int], nn.Module]
    fusion_eps: float


MAP_LAYERS = TokenLayers(MapLinear, MapNorm, fusion_eps=1e-5)  # MedFormer
LIST_LAYERS = TokenLayers(TokenLinear, TokenNorm, fusion_eps=1e-4)  # Hermes


class BidirectionalAttention(nn.Module):
    """One product of feature and token queries; each side reads the other's values by it."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Triple, *, heads: int, layers: TokenLayers, tokens_leave: bool
    ):
        super().__init__()
        self.heads = heads
        self.head_width = outputs // heads
        inner = self.head_width * heads
        self.feat_qv = Separable(inputs, 2 * inner, kernel)
        self.feat_out = Separable(inner, outputs, kernel)
        self.map_qv = layers.linear(outputs, 2 * inner)
        self.map_out = layers.linear(inner, outputs) if tokens_leave else nn.Identity()

    def forward(self, x_BCZYX: Tensor, tokens_BNC: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the features and what the tokens read."""
        grid_zyx = x_BCZYX.shape[2:]
        query_BHVD, value_BHVD = (self._by_head(part) for part in to_tokens(self.feat_qv(x_BCZYX)).chunk(2, dim=-1))
        asked_BHND, read_BHND = (self._by_head(part) for part in self.map_qv(tokens_BNC).chunk(2, dim=-1))
        scores_BHVN = (query_BHVD @ asked_BHND.transpose(-2, -1)) * self.head_width**-0.5
        features = _joined(scores_BHVN.softmax(dim=-1) @ read_BHND)
        tokens = _joined(scores_BHVN.softmax(dim=-2).transpose(-2, -1) @ value_BHVD)
        return self.feat_out(to_volume(features, grid_zyx)), self.map_out(tokens)

    def _by_head(self, tokens_BNC: Tensor) -> Tensor:
        """Return `BHND`; the head is the faster part of a channel's number."""
        return tokens_BNC.unflatten(-1, (self.head_width, self.heads)).movedim(-1, 1)


def _joined(x_BHND: Tensor) -> Tensor:
    return x_BHND.movedim(1, -1).flatten(2)


class AttentionBlock(nn.Module):
    """Attention in both directions, then an inverted bottleneck for the features."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Triple,
        *,
        heads: int,
        expansion: int,
        activation: str,
        layers: TokenLayers,
        tokens_leave: bool = True,
    ):
        super().__init__()
        self.norm2 = layers.norm(outputs)
        self.attn = BidirectionalAttention(
            inputs, outputs, kernel, heads=heads, layers=layers, tokens_leave=tokens_leave
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = Unit(inputs, outputs, activation=activation)
        self.feedforward = MBConv(outputs, kernel, expansion=expansion, activation=activation)

    def forward(self, x_BCZYX: Tensor, tokens_BNC: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of the block's width and tokens of the same shape."""
        features, tokens = self.attn(instance_norm(x_BCZYX, eps=NORM_EPS), self.norm2(tokens_BNC))
        x_BCZYX = features + self.shortcut(x_BCZYX)
        return x_BCZYX + self.feedforward(x_BCZYX), tokens + tokens_BNC


class AttentionBlocks(nn.Module):
    """Attention blocks one after another."""

    def __init__(self, blocks: Sequence[AttentionBlock]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self, x_BCZYX: Tensor, map_BNC: Tensor, priors_BMC: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return features, map and, from behind the map's tokens, what became of the priors."""
        count = map_BNC.shape[1]
        tokens_BNC = map_BNC if priors_BMC is None else torch.cat([map_BNC, priors_BMC], dim=1)
        for block in self.blocks:
            x_BCZYX, tokens_BNC = block(x_BCZYX, tokens_BNC)
        return x_BCZYX, tokens_BNC[:, :count], tokens_BNC[:, count:]


def _blocks(sizes: Sizes, level: int, inputs: int, layers: TokenLayers, *, last_leaves: bool) -> AttentionBlocks:
    count = sizes.attentions[level]
    return AttentionBlocks(
        [
            AttentionBlock(
                inputs if number == 0 else sizes.widths[level],
                sizes.widths[level],
                sizes.kernels_zyx[KERNEL_OF_LEVEL[level]],
                heads=sizes.heads[level],
                expansion=sizes.expansion,
                activation=sizes.activation,
                layers=layers,
                tokens_leave=last_leaves or number < count - 1,
            )
            for number in range(count)
        ]
    )


def _convolutions(sizes: Sizes, level: int, inputs: int) -> nn.Sequential:
    width, kernel = sizes.widths[level], sizes.kernels_zyx[KERNEL_OF_LEVEL[level]]
    return nn.Sequential(
        *(
            BasicBlock(inputs if number == 0 else width, width, kernel, activation=sizes.activation)
            for number in range(sizes.convolutions[level])
        )
    )


class MapGenerator(nn.Module):
    """Makes a few tokens, each a weighted mean over all voxels."""

    def __init__(self, width: int, tokens: int):
        super().__init__()
        self.base_proj = nn.Conv3d(width, width, 3, padding=1, bias=False)
        self.semantic_proj = nn.Conv3d(width, tokens, 3, padding=1, bias=False)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return `map_BNC`."""
        weights_BNV = self.semantic_proj(x_BCZYX).flatten(2).softmax(dim=-1)
        return weights_BNV @ to_tokens(self.base_proj(x_BCZYX))


class Down(nn.Module):
    """Patch merging and basic blocks; from the second level on also a map and attention blocks."""

    def __init__(self, sizes: Sizes, level: int, layers: TokenLayers):
        super().__init__()
        inputs = sizes.base if level == 0 else sizes.widths[level - 1]
        width, kernel = sizes.widths[level], sizes.kernels_zyx[KERNEL_OF_LEVEL[level]]
        self.patch_merging = PatchMerging(inputs, width, kernel, sizes.scales_zyx[level])
        self.conv_blocks = _convolutions(sizes, level, width)
        if level > 0:
            self.map_gen = MapGenerator(width, sizes.tokens)
            self.trans_blocks = _blocks(sizes, level, width, layers, last_leaves=True)

    def shrink(self, x_BCZYX: Tensor) -> Tensor:
        """Return the features before attention."""
        return self.conv_blocks(self.patch_merging(x_BCZYX))

    def forward(self, x_BCZYX: Tensor, priors_BMC: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return features, map and posterior tokens."""
        x_BCZYX = self.shrink(x_BCZYX)
        return self.trans_blocks(x_BCZYX, self.map_gen(x_BCZYX), priors_BMC)


class Up(nn.Module):
    """Up-sampled features beside the skip; attention blocks at the two coarser levels, then basic blocks."""

    def __init__(self, sizes: Sizes, level: int, layers: TokenLayers):
        super().__init__()
        inputs, width = sizes.widths[level - 1], sizes.widths[level]
        both = inputs + width
        attends = level < len(DOWN) + 2
        if attends:
            self.map_reduction = layers.linear(both, width)
            self.trans_blocks = _blocks(sizes, level, both, layers, last_leaves=level < len(DOWN) + 1)
        self.conv_blocks = _convolutions(sizes, level, width if attends and sizes.attentions[level] else both)

    def forward(self, x_BCZYX: Tensor, skip_BCZYX: Tensor) -> Tensor:
        """Return features of the skip's size from a level without attention."""
        return self.conv_blocks(beside(x_BCZYX, skip_BCZYX))

    def attend(
        self,
        x_BCZYX: Tensor,
        skip_BCZYX: Tensor,
        map_BNC: Tensor,
        skip_map_BNC: Tensor,
        priors_BMC: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return features of the skip's size, map and posterior tokens."""
        map_BNC = self.map_reduction(torch.cat([map_BNC, skip_map_BNC], dim=-1))
        x_BCZYX, map_BNC, posteriors_BMC = self.trans_blocks(beside(x_BCZYX, skip_BCZYX), map_BNC, priors_BMC)
        return self.conv_blocks(x_BCZYX), map_BNC, posteriors_BMC


def enlarged(x_BCZYX: Tensor, size_zyx: Sequence[int]) -> Tensor:
    """Return the features up-sampled to a size, corners on corners."""
    return functional.interpolate(x_BCZYX, size=tuple(size_zyx), mode="trilinear", align_corners=True)


def beside(x_BCZYX: Tensor, skip_BCZYX: Tensor) -> Tensor:
    """Return the up-sampled features and, after them, the skip."""
    return torch.cat([enlarged(x_BCZYX, skip_BCZYX.shape[2:]), skip_BCZYX], dim=1)


class Mlp(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, inputs: int, inner: int, outputs: int):
        super().__init__()
        self.fc1 = nn.Linear(inputs, inner)
        self.fc2 = nn.Linear(inner, outputs)

    def forward(self, tokens_BNC: Tensor) -> Tensor:
        """Return tokens of `outputs` channels."""
        return self.fc2(functional.gelu(self.fc1(tokens_BNC)))


class SelfAttention(nn.Module):
    """Multi-head self-attention; heads are slower than the features of a head."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        inner = width // heads * heads
        self.to_qkv = nn.Linear(width, 3 * inner, bias=False)
        self.to_out = nn.Linear(inner, width)

    def forward(self, tokens_BNC: Tensor) -> Tensor:
        """Return tokens of the same shape."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.to_qkv(tokens_BNC).chunk(3, dim=-1)
        )
        return self.to_out(functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class PreNorm(nn.Module):
    """Layer norm in front of a module."""

    def __init__(self, width: int, module: nn.Module, *, eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=eps)
        self.fn = module

    def forward(self, tokens_BNC: Tensor) -> Tensor:
        """Return what the module makes of the normalised tokens."""
        return self.fn(self.norm(tokens_BNC))


class TokenTransformer(nn.Module):
    """Self-attention and a position-wise network in turn."""

    def __init__(self, width: int, *, depth: int, heads: int, eps: float):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    PreNorm(width, SelfAttention(width, heads), eps=eps),
                    PreNorm(width, Mlp(width, width, width), eps=eps),
                ]
            )
            for _ in range(depth)
        )

    def forward(self, tokens_BNC: Tensor) -> Tensor:
        """Return tokens of the same shape."""
        for layer in self.layers:
            for part in layer.children():
                tokens_BNC = tokens_BNC + part(tokens_BNC)
        return tokens_BNC


class MapFusion(nn.Module):
    """The maps of down2, down3 and down4 attend to one another at one width."""

    def __init__(self, sizes: Sizes, layers: TokenLayers):
        super().__init__()
        widths, fused = sizes.widths[1:4], sizes.fusion_width
        self.in_proj = nn.ModuleList(layers.linear(width, fused) for width in widths)
        self.fusion = TokenTransformer(fused, depth=sizes.fusion_depth, heads=sizes.fusion_heads, eps=layers.fusion_eps)
        self.out_proj = nn.ModuleList(layers.linear(fused, width) for width in widths)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the three maps in the shapes that they had."""
        projected = [project(map_BNC) for project, map_BNC in zip(self.in_proj, maps, strict=True)]
        fused_BNC = self.fusion(torch.cat(projected, dim=1))
        parts = fused_BNC.split([map_BNC.shape[1] for map_BNC in maps], dim=1)
        return [project(part) for project, part in zip(self.out_proj, parts, strict=True)]
