"""Start a network from other weights, with evidence: what matched, was resized, is missing or stays unused."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from models.interface import SegmentationModel
from segbench.core.errors import fault

TRANSFERRED = ("encoder.", "decoder.")
FIRST_UP = "decoder.up.0.weight"


@dataclass(frozen=True)
class MatchReport:
    """Names of tensors by fate, and the share of the target's parameters that was loaded."""

    matched: list[str]
    resized: list[str]
    missing: list[str]
    unused: list[str]
    share: float

    def to_dict(self) -> dict:
        """Return plain lists for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Return one line for the log."""
        return (
            f"transfer: {len(self.matched)} tensors matched, {len(self.resized)} resized, {len(self.missing)} missing, "
            f"{len(self.unused)} unused; {100 * self.share:.1f} % of the parameters loaded"
        )


def transfer_weights(
    source: dict[str, Tensor],
    target: SegmentationModel,
    *,
    source_format: str = "segbench",
    minimum_share: float = 0.5,
) -> MatchReport:
    """Load encoder and decoder tensors into `target` in place; heads stay new.

    The first up-sampling of a network with prompt channels is cut to the target's inputs. Nothing is loaded and
    InputFaults is raised when the share of the target's parameters that would be loaded is below `minimum_share`.
    """
    if source_format == "uniseg_official":
        from models.uniseg.weights import from_official

        source = from_official(source).state_dict()
    own = target.state_dict()
    chosen: dict[str, Tensor] = {}
    resized = []
    for name, tensor in source.items():
        if not name.startswith(TRANSFERRED) or name not in own:
            continue
        if name == FIRST_UP and tensor.shape[0] > own[name].shape[0] and tensor.shape[1:] == own[name].shape[1:]:
            tensor = tensor[: own[name].shape[0]]
            resized.append(name)
        if tensor.shape == own[name].shape:
            chosen[name] = tensor
    loaded = sum(tensor.numel() for tensor in chosen.values())
    report = MatchReport(
        matched=sorted(set(chosen) - set(resized)),
        resized=resized,
        missing=sorted(set(own) - set(chosen)),
        unused=sorted(set(source) - set(chosen)),
        share=loaded / sum(tensor.numel() for tensor in own.values()),
    )
    if report.share < minimum_share:
        raise fault(
            "transfer of weights",
            found=f"{100 * report.share:.1f} % of the parameters match",
            expected=f"at least {100 * minimum_share:.0f} %",
            mend="use weights of the same network size, or lower minimum_share",
        )
    with torch.no_grad():
        for name, tensor in chosen.items():
            own[name].copy_(tensor)
    return report
