"""Initialise a network with other weights, with evidence: what matched, was resized, is missing or stays unused."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import ModuleType

import torch
from torch import Tensor

from models.interface import SegmentationModel
from models.weights.probe import check_probe, probe
from models.weights.reading import tensors_of
from segbench.core.cards import format_cards
from segbench.core.errors import InputError, Problem, input_error, raise_problems, suggestion

SHARED_PREFIXES = ("encoder.", "decoder.")
UP_SAMPLING = "decoder.up."
WHERE = "transfer of weights"
SHOWN_PROBLEMS = 5


@dataclass(frozen=True)
class MatchReport:
    """Names of tensors by fate, and the fraction of the target's parameters that was loaded (0..1).

    matched: taken as they are; resized: taken with fewer or more inputs; missing: the target's own, left as they were
    (its new heads among them); unused: of the source, not taken. reasons: why a tensor was resized, or is missing
    although the source has one of its name. probe: the network's answer to a fixed input (`models.weights.probe`).
    """

    matched: list[str]
    resized: list[str]
    missing: list[str]
    unused: list[str]
    reasons: dict[str, str]
    fraction: float
    probe: list[float]

    def to_dict(self) -> dict:
        """Return plain lists for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Return one line for the log."""
        reasons = "".join(f"; {name}: {reason}" for name, reason in self.reasons.items())
        return (
            f"transfer: {len(self.matched)} tensors matched, {len(self.resized)} resized, "
            f"{len(self.missing)} missing, {len(self.unused)} unused; "
            f"{100 * self.fraction:.1f} % of the parameters loaded; probe {self.probe}{reasons}"
        )


def transfer_weights(
    source: Mapping[str, Tensor],
    target: SegmentationModel,
    *,
    where: str = WHERE,
    source_format: str = "segbench",
    prefixes: Sequence[str] = SHARED_PREFIXES,
    minimum_fraction: float | None = None,
    expected_probe: Sequence[float] | None = None,
) -> MatchReport:
    """Load the tensors below `prefixes` into `target` in place where names and shapes agree; the rest stays new.

    source_format: a file of models/weights/formats, whose card says what may differ. An up-sampling with more inputs
    than the target's, as behind a prompt, loses the last ones. prefixes: for a format `cards.loaded_prefixes`, for a
    network of our own the `encoder_keys` of its card. minimum_fraction: of the target's parameters below `prefixes`; by
    default the format's. Nothing is loaded and InputError is raised when less would be, when the source is not a state
    dict of that format, or when the answer to the probe is not finite, unchanged, or not the expected one; its problems
    name `where`.
    """
    card, layout = _format(source_format)
    state = tensors_of(source, where)
    if hasattr(layout, "renamed"):
        state = layout.renamed(state)
    own = _own_tensors(target)
    wanted = {name: layout.file_name(name) for name in own if name.startswith(tuple(prefixes))}
    chosen, reasons = _choose(wanted, own, state, card["stems"])
    if card["strict"]:
        raise_problems(_strict_problems(wanted, chosen, own, state, card=card, where=where))
    fraction, handed_over = _fraction(target, chosen), _fraction(target, wanted)
    least = card["minimum_fraction"] if minimum_fraction is None else minimum_fraction
    share = fraction / handed_over if handed_over else 0.0
    _check_fraction(share, len(chosen), least, hindered=_hindered(wanted, chosen, reasons), where=where)
    answer = probe(target, chosen, where)
    if expected_probe is not None:
        check_probe(answer, expected_probe, where)
    with torch.no_grad():
        for name, tensor in chosen.items():
            own[name].copy_(tensor)
    return MatchReport(
        matched=sorted(chosen.keys() - reasons.keys()),
        resized=sorted(chosen.keys() & reasons.keys()),
        missing=sorted(own.keys() - chosen.keys()),
        unused=_unused(state, (wanted[name] for name in chosen)),
        reasons=reasons,
        fraction=fraction,
        probe=answer,
    )


def _format(name: str) -> tuple[dict, ModuleType]:
    """Return card and module of a format; an unknown name raises InputError with a suggestion."""
    cards = format_cards()
    if name not in cards:
        raise input_error(WHERE, found=repr(name), expected="a format", fix=suggestion(name, cards))
    return cards[name], importlib.import_module(f"models.weights.formats.{name}")


def _own_tensors(target: SegmentationModel) -> dict[str, Tensor]:
    """Return the state dict with each tensor once: some libraries register a layer under several names."""
    distinct = {name for name, _ in [*target.named_parameters(), *target.named_buffers()]}
    return {name: tensor for name, tensor in target.state_dict().items() if name in distinct}


def _choose(
    wanted: Mapping[str, str], own: Mapping[str, Tensor], state: Mapping[str, Tensor], stems: Mapping[str, str]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors to load by the target's names, and by name what was changed or hinders one."""
    chosen: dict[str, Tensor] = {}
    reasons: dict[str, str] = {}
    for name, file_name in wanted.items():
        if file_name in state:
            tensor, reason = _fitted(name, state[file_name], own[name], stems)
            chosen |= {} if tensor is None else {name: tensor}
            reasons |= {} if reason is None else {name: reason}
    return chosen, reasons


def _fitted(name: str, tensor: Tensor, own: Tensor, stems: Mapping[str, str]) -> tuple[Tensor | None, str | None]:
    """Return the tensor in the target's shape or None, and what was changed or hinders it."""
    shape = own.shape
    if _holds_no_floats(tensor, own):
        return None, f"{_kind(tensor)} in the source, floats here"
    if tensor.shape == shape:
        return tensor, None
    if tensor.ndim == len(shape) > 1:
        if name.startswith(UP_SAMPLING) and tensor.shape[0] > shape[0] and tensor.shape[1:] == shape[1:]:
            return tensor[: shape[0]], f"{shape[0]} of its {tensor.shape[0]} inputs taken"
        if stems.get(name) == "repeated" and tensor.shape[1] == 1 and _other_inputs(tensor, own):
            repeated = tensor.repeat(1, shape[1], *[1] * (tensor.ndim - 2)) / shape[1]
            return repeated, f"its one input repeated for {shape[1]} channels and divided by {shape[1]}"
    return None, f"shape {list(tensor.shape)} in the source, {list(shape)} here"


def _other_inputs(tensor: Tensor, own: Tensor) -> bool:
    """Tell whether a weight differs in its number of input channels only."""
    same_sides = [*tensor.shape[:1], *tensor.shape[2:]] == [*own.shape[:1], *own.shape[2:]]
    return tensor.ndim == own.ndim and same_sides and not _holds_no_floats(tensor, own)


def _holds_no_floats(tensor: Tensor, own: Tensor) -> bool:
    """Tell whether whole numbers, such as packed weights without their scale, stand where the target has floats."""
    return own.is_floating_point() and not tensor.is_floating_point()


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _strict_problem(where: str, file_name: str, tensor: Tensor | None, own: Tensor, fix: str) -> Problem:
    expected = f"shape {tuple(own.shape)}"
    if tensor is None:
        return Problem(where, f"no {file_name}", expected, fix)
    found = f"tensor {file_name} of shape {tuple(tensor.shape)}"
    if _holds_no_floats(tensor, own):
        return Problem(where, f"{found} and type {_kind(tensor)}", f"{expected} of floats", fix)
    return Problem(where, found, expected, fix)


def _strict_problems(
    wanted: Mapping[str, str],
    chosen: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    *,
    card: dict,
    where: str,
) -> list[Problem]:
    """Return a problem for each tensor that the layout expects and the file lacks or has in another shape."""
    lost = [
        (name, file_name)
        for name, file_name in wanted.items()
        if name not in chosen
        and not (name in card["stems"] and file_name in state and _other_inputs(state[file_name], own[name]))
    ]
    fix = f"use a checkpoint of {card['title']}, and its network size in the section network"
    problems = [
        _strict_problem(where, file_name, state.get(file_name), own[name], fix)
        for name, file_name in lost[:SHOWN_PROBLEMS]
    ]
    if len(lost) > SHOWN_PROBLEMS:
        found = f"{len(lost)} tensors missing or of another shape, {len(problems)} of them above"
        problems.append(Problem(where, found, f"all {len(wanted)} of the layout", fix))
    return problems


def _fraction(target: SegmentationModel, names: Iterable[str]) -> float:
    """Return the fraction of the parameters (0..1) that bear these names."""
    sizes = {name: parameter.numel() for name, parameter in target.named_parameters()}
    return sum(sizes.get(name, 0) for name in names) / sum(sizes.values())


def _hindered(wanted: Mapping[str, str], chosen: Mapping[str, Tensor], reasons: Mapping[str, str]) -> list[str]:
    """Return for each tensor of the source that does not fit its name there and why."""
    return [f"tensor {wanted[name]}: {reason}" for name, reason in reasons.items() if name not in chosen]


def _check_fraction(fraction: float, count: int, minimum: float, *, hindered: Sequence[str], where: str) -> None:
    """Raise InputError when too little of the source fits; the first tensors that do not fit are named."""
    if fraction < minimum or not count:
        fix = "use weights of the same network and size, state their format, or lower minimum_fraction"
        found = f"{100 * fraction:.1f} % of the parameters that the source hands over match ({count} tensors)"
        problems = [Problem(where, found, f"at least {100 * minimum:.0f} %", fix)]
        problems += [Problem(where, item, "what this network has", fix) for item in hindered[:SHOWN_PROBLEMS]]
        raise InputError(problems)


def _unused(state: Mapping[str, Tensor], used: Iterable[str]) -> list[str]:
    """Return the tensors of the source that were not taken under any of their names; a part of one is another one."""

    def place(tensor: Tensor) -> tuple:
        return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype

    places = {place(state[name]) for name in used}
    return sorted(name for name, tensor in state.items() if place(tensor) not in places)
