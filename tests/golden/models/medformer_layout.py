"""MedFormer and Hermes computed from their state dicts step by step, with loops over heads and without our modules."""

import itertools

import torch
from torch.nn import functional


class Layout:
    """Functions on a state dict; `lists`: tokens as Hermes has them, otherwise maps as in MedFormer."""

    def __init__(self, state, *, scales, heads, fusion_heads, lists=False, gelu=False):
        self.state, self.scales, self.heads, self.fusion_heads = state, scales, heads, fusion_heads
        self.lists = lists
        self.activation = functional.gelu if gelu else functional.relu

    def has(self, name):
        return any(key.startswith(name) for key in self.state)

    def count(self, name):
        return next(number for number in itertools.count() if not self.has(f"{name}.{number}."))

    def conv(self, name, x, *, groups=1, stride=1):
        weight = self.state[f"{name}.weight"]
        padding = [size // 2 for size in weight.shape[2:]]
        return functional.conv3d(x, weight, self.state.get(f"{name}.bias"), stride, padding, groups=groups)

    def linear(self, name, tokens):
        weight = self.state[f"{name}.weight"].flatten(1)  # of a linear layer or of a 1x1x1 convolution
        return functional.linear(tokens, weight, self.state.get(f"{name}.bias"))

    def layer_norm(self, name, tokens, eps=1e-5):
        affine = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return functional.layer_norm(tokens, tokens.shape[-1:], *affine, eps=eps)

    def unit(self, name, x, *, act=True, groups=1, stride=1):
        x = functional.instance_norm(x, eps=1e-4)
        return self.conv(f"{name}.conv", self.activation(x) if act else x, groups=groups, stride=stride)

    def basic(self, name, x, stride=1):
        y = self.unit(f"{name}.conv2", self.unit(f"{name}.conv1", x, stride=stride))
        return y + (self.unit(f"{name}.shortcut", x, stride=stride) if self.has(f"{name}.shortcut.") else x)

    def basics(self, name, x):
        for number in range(self.count(name)):
            x = self.basic(f"{name}.{number}", x)
        return x

    def separable(self, name, x):
        return self.conv(f"{name}.pointwise", self.conv(f"{name}.depthwise", x, groups=x.shape[1]))

    def merged(self, name, x, scale):
        a, b, c = scale
        parts = [x[:, :, i::a, j::b, k::c] for i in range(a) for j in range(b) for k in range(c)]
        return self.separable(f"{name}.reduction", functional.instance_norm(torch.cat(parts, dim=1)))

    def attention(self, name, x, tokens, heads, width):
        """Return what features and tokens read; channel d * heads + h belongs to head h."""
        grid, inner = x.shape[2:], width // heads * heads
        normed = functional.instance_norm(x)
        if self.lists:
            tokens = self.layer_norm(f"{name}.norm2", tokens)
        else:
            tokens = functional.instance_norm(tokens.transpose(1, 2)).transpose(1, 2)
        query, value = self.separable(f"{name}.attn.feat_qv", normed).flatten(2).transpose(1, 2).split(inner, dim=2)
        asked, read = self.linear(f"{name}.attn.map_qv", tokens).split(inner, dim=2)
        features, answers = torch.zeros_like(value), torch.zeros_like(read)
        for head in range(heads):
            of = slice(head, None, heads)
            scores = query[..., of] @ asked[..., of].transpose(1, 2) * (width // heads) ** -0.5
            features[..., of] = scores.softmax(dim=2) @ read[..., of]
            answers[..., of] = scores.softmax(dim=1).transpose(1, 2) @ value[..., of]
        features = features.transpose(1, 2).unflatten(2, grid)
        if self.has(f"{name}.attn.map_out."):
            answers = self.linear(f"{name}.attn.map_out", answers)
        return self.separable(f"{name}.attn.feat_out", features), answers

    def block(self, name, x, tokens, heads, width):
        features, answers = self.attention(name, x, tokens, heads, width)
        x = features + (self.unit(f"{name}.shortcut", x) if self.has(f"{name}.shortcut.") else x)
        y, name = x, f"{name}.feedforward"
        if self.has(f"{name}.expand_proj."):
            y = self.unit(f"{name}.expand_proj", y)
        y = self.unit(f"{name}.depthwise", y, groups=y.shape[1])
        gate = self.conv(f"{name}.se.excitation.0", y.mean((2, 3, 4), keepdim=True)).relu()
        y = y * self.conv(f"{name}.se.excitation.2", gate).sigmoid()
        return x + self.unit(f"{name}.pointwise", y, act=False), tokens + answers

    def blocks(self, name, x, tokens, level, priors):
        count = tokens.shape[1]
        tokens = tokens if priors is None else torch.cat([tokens, priors], dim=1)
        width = self.state[f"{name}.trans_blocks.blocks.0.attn.feat_out.pointwise.weight"].shape[0]
        for number in range(self.count(f"{name}.trans_blocks.blocks")):
            x, tokens = self.block(f"{name}.trans_blocks.blocks.{number}", x, tokens, self.heads[level], width)
        return x, tokens[:, :count], tokens[:, count:]

    def priors(self, name, tasks, modalities):
        if not self.lists:
            return None
        return torch.stack(
            [
                torch.cat(
                    [
                        *(self.state[f"{name}.task_prior"][[row]] for row in rows),
                        self.state[f"{name}.modality_prior"][modality],
                    ]
                )
                for rows, (modality,) in zip(tasks, modalities, strict=True)
            ]
        )

    def fused(self, maps):
        eps = 1e-4 if self.lists else 1e-5
        tokens = torch.cat([self.linear(f"map_fusion.in_proj.{n}", part) for n, part in enumerate(maps)], dim=1)
        for depth in range(self.count("map_fusion.fusion.layers")):
            name = f"map_fusion.fusion.layers.{depth}"
            normed = self.layer_norm(f"{name}.0.norm", tokens, eps)
            query, key, value = self.linear(f"{name}.0.fn.to_qkv", normed).chunk(3, dim=2)
            width = query.shape[2] // self.fusion_heads
            heads = [slice(head * width, (head + 1) * width) for head in range(self.fusion_heads)]
            read = [
                (query[..., of] @ key[..., of].transpose(1, 2) * width**-0.5).softmax(dim=2) @ value[..., of]
                for of in heads
            ]
            tokens = tokens + self.linear(f"{name}.0.fn.to_out", torch.cat(read, dim=2))
            tokens = tokens + self.mlp(f"{name}.1.fn", self.layer_norm(f"{name}.1.norm", tokens, eps))
        parts = tokens.chunk(3, dim=1)
        return [self.linear(f"map_fusion.out_proj.{n}", part) for n, part in enumerate(parts)]

    def mlp(self, name, tokens):
        return self.linear(f"{name}.fc2", functional.gelu(self.linear(f"{name}.fc1", tokens)))

    def classified(self, name, x, tokens):
        weights = self.layer_norm(f"{name}.norm", tokens)
        for number in (0, 1):
            weights = self.mlp(f"{name}.classifier_pred.{number}", weights)
        return (weights @ x.flatten(2)).unflatten(2, x.shape[2:])

    def modality(self, tokens):
        return self.mlp("mod_out.classifier", self.layer_norm("mod_out.norm", tokens).mean(dim=1))


def enlarged(x, like):
    """Return x on the grid of another tensor, corners on corners."""
    return functional.interpolate(x, size=like.shape[2:], mode="trilinear", align_corners=True)


def medformer(layout, images, tasks=None, modalities=None):
    """Return the outputs of MedFormer or, with tasks and modalities, of Hermes on it, flattened."""
    x0 = layout.basic("inc.conv2", layout.conv("inc.conv1", images))
    x1 = layout.basics("down1.conv_blocks", layout.merged("down1.patch_merging", x0, layout.scales[0]))
    x, skips, maps, posteriors = x1, [], [], []
    for level in (1, 2, 3):
        name = f"down{level + 1}"
        x = layout.basics(f"{name}.conv_blocks", layout.merged(f"{name}.patch_merging", x, layout.scales[level]))
        weights = layout.conv(f"{name}.map_gen.semantic_proj", x).flatten(2).softmax(dim=2)
        tokens = weights @ layout.conv(f"{name}.map_gen.base_proj", x).flatten(2).transpose(1, 2)
        x, tokens, posterior = layout.blocks(
            name, x, tokens, level, layout.priors(f"{name}.prior_selection", tasks, modalities)
        )
        skips.append(x)
        maps.append(tokens)
        posteriors.append(posterior)
    maps = layout.fused(maps)
    tokens = maps[2]
    for number, skip, skip_map in ((1, skips[1], maps[1]), (2, skips[0], maps[0])):
        name = f"up{number}"
        tokens = layout.linear(f"{name}.map_reduction", torch.cat([tokens, skip_map], dim=2))
        priors = layout.priors(f"{name}.prior_selection", tasks, modalities)
        x, tokens, posterior = layout.blocks(
            name, torch.cat([enlarged(x, skip), skip], dim=1), tokens, 3 + number, priors
        )
        x = layout.basics(f"{name}.conv_blocks", x)
        posteriors.append(posterior)
    coarse = x
    for name, skip in (("up3", x1), ("up4", x0)):
        x = layout.basics(f"{name}.conv_blocks", torch.cat([enlarged(x, skip), skip], dim=1))
    if not layout.lists:
        auxiliary = [enlarged(layout.conv("aux_out", coarse), images)] if layout.has("aux_out.") else []
        return [layout.conv("outc", x), *auxiliary]
    tokens, asked = torch.cat(posteriors, dim=2), len(tasks[0])
    auxiliary = []
    if layout.has("aux_classifier."):
        auxiliary = [enlarged(layout.classified("aux_classifier", coarse, tokens[:, :asked]), images)]
    return [layout.classified("out_classifier", x, tokens[:, :asked]), *auxiliary, layout.modality(tokens[:, asked:])]


def exchanged(layout, name, x, tasks, modalities):
    """Return features and posterior tokens of one level of the U-Net form."""
    priors, voxels = layout.priors(name, tasks, modalities), x.flatten(2).transpose(1, 2)

    def cross(name, queries, source):
        query = layout.linear(f"{name}.fn.to_q", layout.layer_norm(f"{name}.norm1", queries))
        key, value = layout.linear(f"{name}.fn.to_kv", layout.layer_norm(f"{name}.norm2", source)).chunk(2, dim=2)
        width = min(32, x.shape[1])
        heads = [slice(first, first + width) for first in range(0, query.shape[2], width)]
        read = [
            (query[..., of] @ key[..., of].transpose(1, 2) * width**-0.5).softmax(dim=2) @ value[..., of]
            for of in heads
        ]
        return layout.linear(f"{name}.fn.to_out", torch.cat(read, dim=2))

    for number in range(layout.count(f"{name}.attn_layers")):
        place = f"{name}.attn_layers.{number}"
        priors = priors + cross(f"{place}.prior_aggregate_block", priors, voxels)
        normed = layout.layer_norm(f"{place}.prior_ffn.norm", priors, 1e-4)
        priors = priors + layout.mlp(f"{place}.prior_ffn.fn", normed)
        voxels = voxels + cross(f"{place}.feat_aggregate_block", voxels, priors)
        normed = layout.layer_norm(f"{place}.feat_ffn.norm", voxels, 1e-4)
        voxels = voxels + layout.mlp(f"{place}.feat_ffn.fn", normed)
    return voxels.transpose(1, 2).unflatten(2, x.shape[2:]), priors


def unet(layout, images, tasks, modalities, *, pool):
    """Return the outputs of Hermes on the residual U-Net, flattened."""

    def numbered(name):
        return sorted({int(key.split(".")[2]) for key in layout.state if key.startswith(f"{name}.conv.")})

    x, skips, posteriors = layout.basic("inc.conv2", layout.conv("inc.conv1", images)), [], []
    for level, scale in enumerate(layout.scales, start=1):
        skips.append(x)
        x = functional.max_pool3d(x, scale) if pool else x
        for position, number in enumerate(numbered(f"down{level}")):
            x = layout.basic(f"down{level}.conv.{number}", x, 1 if pool or position else scale)
        if level > 1:
            x, posterior = exchanged(layout, f"prior_init_fuse_{level}", x, tasks, modalities)
            posteriors.append(posterior)
    for level in range(1, 5):
        skip = skips.pop()
        x = torch.cat([skip, enlarged(x, skip)], dim=1)
        for number in numbered(f"up{level}"):
            x = layout.basic(f"up{level}.conv.{number}", x)
        if level < 3:
            x, posterior = exchanged(layout, f"prior_fuse_{level + 4}", x, tasks, modalities)
            posteriors.append(posterior)
    tokens, asked = torch.cat(posteriors, dim=2), len(tasks[0])
    return [layout.classified("out", x, tokens[:, :asked]), layout.modality(tokens[:, asked:])]
