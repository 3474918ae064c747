"""Render the tables, figures and page of a finished run."""

from __future__ import annotations

import argparse
from pathlib import Path

from segbench.core.paths import MADE_FROM, PAGE

EXAMPLE = "python -m segbench report --results results/demo --out results/demo/report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--results", type=Path, required=True, help="folder with scores.csv and run.json")
    parser.add_argument("--out", type=Path, required=True, help="folder that receives index.html, tables/ and figures/")
    parser.add_argument("--record", type=Path, help="write the rendered files with their hashes, for the workflow")


def run(args: argparse.Namespace) -> int:
    """Render and say where the page is; a report that was rendered from the same inputs by the same code is kept."""
    if args.record is None:
        _render(args.results, args.out)
    else:
        _render_once(args.results, args.out, args.record)
    print(args.out / PAGE)
    return 0


def _render(results: Path, out: Path) -> None:
    from segbench.reporting.page import render

    render(results, out)


def _render_once(results: Path, out: Path, record: Path) -> None:
    """Render unless it is done and write what was rendered; a copy stays when the workflow removes its output."""
    from segbench.core.errors import input_error
    from segbench.core.files import sha256_of, write_json
    from segbench.core.paths import RunPaths
    from segbench.experiment import requests
    from segbench.experiment.graph import reporting_digests
    from segbench.experiment.identity import Identity

    missing = [str(results / name) for name in MADE_FROM if not (results / name).is_file()]
    if missing:
        raise input_error(", ".join(missing), found="no file", expected="a finished run", fix="run the workflow")
    inputs = {name: sha256_of(results / name) for name in MADE_FROM}
    identity = Identity(reporting_digests() | inputs | {"folder": out.as_posix()})
    kept = record.with_name(f"{record.stem}.kept.json")
    content = requests.read(kept)
    rendered = content.get("files", {})
    done = content.get("identity") == identity.to_dict() and all(
        (out / name).is_file() and sha256_of(out / name) == digest for name, digest in rendered.items()
    )
    if not done:
        _render(results, out)
        files = {path.relative_to(out).as_posix(): sha256_of(path) for path in out.rglob("*") if path.is_file()}
        content = {"identity": identity.to_dict(), "files": files, "status": "ok"}
    content["attempt"] = requests.attempt_of(RunPaths(results.name).request("report", "page"))
    write_json(kept, content)
    write_json(record, content)
