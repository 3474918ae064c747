"""UniSeg on the shared backbone: the task's prompt enters at the bottleneck, before the decoder."""

from __future__ import annotations

import torch
from torch import Tensor

from models.backbone import DeepSupervisionHeads, SharedDecoder, SharedEncoder, initialise_weights
from models.interface import NetworkSpec, SegmentationModel
from models.uniseg.prompt import UniversalPrompt
from segbench.core.task import Task, TaskSet


class UniSeg(SegmentationModel):
    """Encoder, universal prompt, decoder with one extra channel, heads with the widest task's classes."""

    def __init__(self, tasks: TaskSet, spec: NetworkSpec):
        super().__init__(tasks, spec)
        self.encoder = SharedEncoder(spec, tasks.channel_counts)
        self.prompt = UniversalPrompt(len(tasks), spec.features[-1], spec.bottleneck_grid_zyx)
        self.decoder = SharedDecoder(spec, extra_bottleneck_channels=1)
        self.heads = DeepSupervisionHeads(spec, tasks.max_classes)
        self.apply(initialise_weights)

    def encode(self, images_BCZYX: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return encoder features, finest first, and the fused prompts of all tasks."""
        features = self.encoder(images_BCZYX)
        return features, self.prompt(features[-1])

    def decode(self, features: tuple[list[Tensor], Tensor], task: Task) -> list[Tensor]:
        """Return `logits_BKZYX` of one task; only its first classes are used, as in the released network."""
        stages, prompts_BTZYX = features
        index = self.tasks.index(task)
        bottleneck_BCZYX = torch.cat([stages[-1], prompts_BTZYX[:, index : index + 1]], dim=1)
        return [logits[:, : task.num_classes] for logits in self.heads(self.decoder(stages, bottleneck_BCZYX))]
