"""Show what of a file of weights a network can take, before any run: match report, probe, line for a config."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segbench.core.errors import InputError, Problem

EXAMPLE = "python -m segbench import-weights --file model_swinvit.pt --format swin_unetr_ssl --model swin_unetr"
SHOWN_NAMES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--file", type=Path, required=True, help="checkpoint, read without executing code")
    parser.add_argument("--format", required=True, help="layout of the file (docs/pretrained_weights.md)")
    parser.add_argument("--model", required=True, help="network that should take the weights")
    parser.add_argument("--channels", type=int, default=1, help="image channels of the task (default: 1)")
    parser.add_argument("--config", type=Path, help="config with the network's size (default: the default size)")
    parser.add_argument("--sha256", help="checksum that the file must have")
    parser.add_argument("--out", type=Path, help="write the tensors that were taken, for format: imported")


def run(args: argparse.Namespace) -> int:
    """Print the report; a file, format or network that does not fit exits with status 2 and nothing is written."""
    import yaml

    from models.loader import build_model
    from models.weights.conventions import Convention
    from models.weights.transfer import transfer_weights
    from segbench.cli._counts import count_problems
    from segbench.core.cards import format_cards
    from segbench.core.errors import InputError, raise_problems
    from segbench.core.task import TaskSet
    from segbench.training.checkpoint import load_weights, save
    from segbench.training.initialise import checked_sha256

    prefixes = _prefixes(args.format, args.model)
    raise_problems([*count_problems(channels=(args.channels, 1)), *_out_problems(args.out)])
    digest = checked_sha256(args.file, args.sha256)
    spec, options = _network(args.config, args.model)
    stated = format_cards()[args.format]["axes"]
    spec = spec if stated == "unknown" else Convention(stated).spec(spec)
    model = build_model(args.model, TaskSet([_probe_task(args.channels)]), spec, **options)
    state = load_weights(args.file)
    try:
        report = transfer_weights(state, model, where=str(args.file), source_format=args.format, prefixes=prefixes)
    except InputError as error:
        raise InputError([*error.problems, *_names_problem(args.file, state, error)]) from error
    print(report.text())
    entry = {"name": "NAME", "file": str(args.file), "format": args.format, "sha256": digest, "probe": report.probe}
    print("-", yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=1000).strip())
    if args.out:
        own = model.state_dict()
        save(args.out, {name: own[name] for name in report.matched + report.resized})
        print(f"wrote {args.out}")
    return 0


def _out_problems(out: Path | None) -> list[Problem]:
    """Return a problem where the name of the file to write asks for another form than that of torch.save."""
    from models.weights.reading import SAFETENSORS
    from segbench.core.errors import Problem

    if out is None or out.suffix.lower() != SAFETENSORS:
        return []
    return [Problem("--out", str(out), "a name for a file of torch.save", "name it .pt: safetensors is only read")]


def _names_problem(file: Path, state: Mapping[str, object], error: InputError) -> list[Problem]:
    """Return a problem that shows names of the file; none where another problem does, or the names are right."""
    from segbench.core.errors import Problem

    if any("probe" in problem.found for problem in error.problems):  # its tensors were taken: they have their names
        return []
    if any(name in problem.found for problem in error.problems for name in state):
        return []
    shown = ", ".join(list(state)[:SHOWN_NAMES])
    return [Problem(str(file), f"tensors named {shown} ...", "the names of the format", "state the file's own format")]


def _prefixes(name: str, model: str) -> list[str]:
    from models.loader import model_card
    from segbench.core.cards import format_cards, loaded_prefixes, target_names
    from segbench.core.errors import input_error, suggestion

    if model_card(model)["kind"] == "control":
        raise input_error("--model", found=model, expected="a network", fix="a control has no weights")
    formats = format_cards()
    if name not in formats:
        raise input_error("--format", found=repr(name), expected="a format", fix=suggestion(name, formats))
    prefixes = loaded_prefixes(formats[name], model, model_card(model))
    if prefixes is None:
        expected = f"one of: {', '.join(target_names(formats[name]))}"
        raise input_error("--model", found=model, expected=expected, fix=f"choose a network that {name} fits")
    return prefixes


def _network(config: Path | None, model: str):
    """Return the network's size and options as a config states them, or the default size."""
    from models.interface import NetworkSpec
    from segbench.experiment.config import load_config

    if config is None:
        return NetworkSpec(), {}
    content = load_config(config)
    entry = next((item for item in content.entries_of("downstream") if item.name == model), None)
    if entry is None:
        return NetworkSpec(**content.network.model_dump()), {}
    return NetworkSpec(**content.network_of("downstream", entry, scope="").model_dump()), entry.options


def _probe_task(channels: int):
    from segbench.core.task import Channel, Structure, Task

    return Task(
        name="probe",
        title="probe",
        channels=tuple(Channel(f"channel {number}", "CT") for number in range(channels)),
        classes=("class",),
        structures=(Structure("class", (1,), 1.0),),
    )
