"""Write the resolved config of a run, defaults filled in, for its jobs to read."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

EXAMPLE = "python -m segbench resolve --config config/config.yaml --out results/demo/config.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", type=Path, help="config file")
    source.add_argument("--json", help="config as a JSON text, as the workflow passes it")
    parser.add_argument("--out", type=Path, required=True, help="file to write")


def run(args: argparse.Namespace) -> int:
    """Check the config and write it as JSON."""
    from segbench.core.config import load_config, parse_config
    from segbench.core.files import write_json

    config = load_config(args.config) if args.config else parse_config(json.loads(args.json), where="config")
    write_json(args.out, config.model_dump(mode="json"))
    return 0
