"""Start a network from other weights, with evidence: what matched, was resized, is missing or stays unused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from models.interface import SegmentationModel, tensors_of
from segbench.core.errors import fault, suggestion

SHARED_PREFIXES = ("encoder.", "decoder.")
UP_SAMPLING = "decoder.up."
FORMATS = ("segbench", "uniseg_official")
WHERE = "transfer of weights"


@dataclass(frozen=True)
class MatchReport:
    """Names of tensors by fate, and the share of the target's parameters that was loaded (0..1).

    matched: taken as they are; resized: taken without the inputs that the target lacks; missing: the target's own,
    left as they were (its new heads among them); unused: of the source, not taken.
    """

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
        resized = f" ({', '.join(self.resized)})" if self.resized else ""
        return (
            f"transfer: {len(self.matched)} tensors matched, {len(self.resized)} resized{resized}, "
            f"{len(self.missing)} missing, {len(self.unused)} unused; "
            f"{100 * self.share:.1f} % of the parameters loaded"
        )


def transfer_weights(
    source: Mapping[str, Tensor],
    target: SegmentationModel,
    *,
    source_format: str = "segbench",
    prefixes: Sequence[str] = SHARED_PREFIXES,
    minimum_share: float = 0.5,
) -> MatchReport:
    """Load the tensors below `prefixes` into `target` in place where names and shapes agree; the rest stays new.

    An up-sampling with more inputs than the target's, as behind a prompt, loses the last ones. source_format:
    'segbench', or 'uniseg_official' for the released UniSeg checkpoint. prefixes: the `encoder_keys` of the source's
    card. Nothing is loaded and InputFaults is raised when the loaded share of the target's parameters would be below
    `minimum_share`, or the source is not a state dict of that format.
    """
    source = _as_ours(source, source_format)
    own = target.state_dict()
    chosen, resized = {}, []
    for name in own:
        if not name.startswith(tuple(prefixes)) or name not in source:
            continue
        tensor = source[name]
        if name.startswith(UP_SAMPLING) and _has_surplus_inputs(tensor, own[name]):
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
            WHERE,
            found=f"{100 * report.share:.1f} % of the parameters match ({len(report.matched)} tensors)",
            expected=f"at least {100 * minimum_share:.0f} %",
            mend="use weights of the same network and size, or lower minimum_share",
        )
    with torch.no_grad():
        for name, tensor in chosen.items():
            own[name].copy_(tensor)
    return report


def _as_ours(source: Mapping[str, Tensor], source_format: str) -> dict[str, Tensor]:
    """Return the state dict under our names."""
    if source_format == "segbench":
        return tensors_of(source, WHERE)
    if source_format == "uniseg_official":
        from models.uniseg.weights import from_official  # only where it is asked for: most runs never need it

        return from_official(source).state_dict()
    raise fault(WHERE, found=repr(source_format), expected="a format", mend=suggestion(source_format, FORMATS))


def _has_surplus_inputs(found: Tensor, wanted: Tensor) -> bool:
    return found.ndim == wanted.ndim and found.shape[0] > wanted.shape[0] and found.shape[1:] == wanted.shape[1:]
