"""List the models, data sets or tasks that segbench knows."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m segbench list models"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("what", choices=["models", "tasks", "datasets"], help="what to list")
    parser.add_argument("--config", type=Path, help="tasks and datasets: only those of this config, its data root too")
    parser.add_argument("--data-root", type=Path, help="folder in which `datasets` looks for files")
    parser.add_argument("--cost", action="store_true", help="models: measure parameters, FLOPs, time and memory here")


def run(args: argparse.Namespace) -> int:
    """Print one aligned row per entry."""
    from segbench.core import cards

    if args.what == "models":
        rows = _model_rows(cards.model_cards(), cost=args.cost)
    elif args.what == "tasks":
        rows = _task_rows(args.config)
    else:
        rows = _dataset_rows(args.config, args.data_root)
    print(_aligned(rows, widths=[None, 24, None, 30, 60] if args.what == "datasets" else None))
    return 0


def _model_rows(cards: dict[str, dict], *, cost: bool) -> list[list[str]]:
    if cost:
        from segbench.documentation.cost import cost_rows

        return cost_rows()
    head = ["model", "title", "kind", "fidelity", "channels", "licence of the original"]
    return [head] + [
        [name, card["title"], card["kind"], card["fidelity"], _join(card["channels"]), card["original_licence"]]
        for name, card in sorted(cards.items(), key=lambda item: (item[1]["kind"], item[0]))
    ]


def _task_rows(config_path: Path | None) -> list[list[str]]:
    from segbench.core import cards

    if config_path:
        from segbench.experiment.config import load_config

        tasks = load_config(config_path).tasks
    else:
        tasks = [cards.task_from_card(name, card) for name, card in cards.dataset_cards().items()]
    head = ["task", "title", "modality", "channels", "classes", "structures scored", "notes"]
    rows = []
    for task in tasks:
        notes = ["synthetic"] * task.synthetic + ["nominal spacing"] * task.spacing_is_nominal
        rows.append(
            [
                task.name,
                task.title,
                task.modality,
                str(task.num_channels),
                _join(task.classes),
                _join(structure.name for structure in task.structures),
                _join(notes),
            ]
        )
    return [head, *rows]


def _dataset_rows(config_path: Path | None, data_root: Path | None) -> list[list[str]]:
    import os

    from segbench.core import cards
    from segbench.data.presence import presence

    known, root = cards.dataset_cards(), data_root or os.environ.get("SEGBENCH_DATA")
    if config_path:
        from segbench.experiment.config import load_config

        config = load_config(config_path)
        known = {task.name: config.dataset_cards[task.name] for task in config.tasks}
        root = data_root or config.data_root
    rows = [["data set", "title", "state", "licence", "step to get it"]]
    for name, card in known.items():
        state = presence(name, card, Path(root)) if root else "not looked for: name --data-root"
        step = "" if state.startswith("present") else card["obtain"]
        rows.append([name, card["title"], state, card["licence"], step])
    return rows


def _join(values) -> str:
    return values if isinstance(values, str) else ", ".join(str(value) for value in values)


def _aligned(rows: list[list[str]], *, widths: list[int | None] | None) -> str:
    from tabulate import tabulate

    return tabulate(
        rows[1:], headers=rows[0], tablefmt="simple", disable_numparse=True, maxcolwidths=widths, break_on_hyphens=False
    )
