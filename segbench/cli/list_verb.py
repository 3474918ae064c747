"""List the models, data sets or tasks that segbench knows."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m segbench list models"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("what", choices=["models", "tasks", "datasets"], help="what to list")
    parser.add_argument("--config", type=Path, help="list the tasks of this config only; its data root for datasets")
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
        rows = _dataset_rows(cards.dataset_cards(), args.data_root)
    print(_aligned(rows))
    return 0


def _model_rows(cards: dict[str, dict], *, cost: bool) -> list[list[str]]:
    if cost:
        from models.cost import cost_rows

        return cost_rows()
    head = ["model", "title", "kind", "fidelity", "channels", "licence of the original"]
    return [head] + [
        [name, card["title"], card["kind"], card["fidelity"], _join(card["channels"]), card["original_licence"]]
        for name, card in sorted(cards.items(), key=lambda item: (item[1]["kind"], item[0]))
    ]


def _task_rows(config_path: Path | None) -> list[list[str]]:
    from segbench.core import cards

    if config_path:
        from segbench.core.config import load_config

        tasks = load_config(config_path).tasks
    else:
        tasks = [cards.task_from_card(name, card) for name, card in cards.dataset_cards().items()]
    head = ["task", "title", "modality", "channels", "classes", "structures scored", "notes"]
    rows = []
    for task in tasks:
        notes = ["synthetic"] * task.synthetic + ["nominal spacing"] * task.spacing_is_nominal
        rows.append(
            [task.name, task.title, task.modality, str(task.num_channels), _join(task.classes),
             _join(structure.name for structure in task.structures), _join(notes)]
        )  # fmt: skip
    return [head, *rows]


def _dataset_rows(cards: dict[str, dict], data_root: Path | None) -> list[list[str]]:
    import os

    from segbench.data.presence import presence

    root = data_root or (Path(os.environ["SEGBENCH_DATA"]) if "SEGBENCH_DATA" in os.environ else None)
    head = ["data set", "title", "state", "licence", "how to obtain"]
    return [head] + [
        [name, card["title"], presence(name, card, root), card["licence"], card["obtain"]]
        for name, card in cards.items()
    ]


def _join(values) -> str:
    return values if isinstance(values, str) else ", ".join(str(value) for value in values)


def _aligned(rows: list[list[str]]) -> str:
    from tabulate import tabulate

    return tabulate(rows[1:], headers=rows[0], tablefmt="simple", disable_numparse=True)
