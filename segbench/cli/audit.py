"""Search for leaks: the same case, patient or image on both sides of a split, across tasks and experiments."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m segbench audit --splits splits_final_11_tasks.pkl --out findings.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, help="config of a run: its split, patients and images")
    what.add_argument("--splits", type=Path, action="append", help="a split alone (*.pkl or *.json); repeatable")
    what.add_argument("--data", type=Path, action="append", help="a folder of labelled volumes; repeatable")
    parser.add_argument("--out", type=Path, help="write the findings as CSV")
    parser.add_argument("--accept", action="append", default=[], metavar="NAME", help="a finding to accept; repeatable")
    parser.add_argument("--workers", type=int, default=1, help="processes that read images (default 1)")


def run(args: argparse.Namespace) -> int:
    """Print one row per finding; a leak that is not accepted exits with status 1."""
    from segbench.cli._counts import count_problems
    from segbench.core.errors import input_error, raise_problems
    from segbench.data.audit import leaks as audit

    raise_problems(count_problems(workers=(args.workers, 1)))
    members, cases, of_weights, accepted = _inputs(args)
    images = audit.same_image_pairs(cases, cache_root=_cache(args), workers=args.workers) if cases else {}
    findings = audit.accept([*audit.audit(members, images), *of_weights], accepted)
    unused = sorted(set(accepted) - {item.name for item in findings})
    if unused:
        raise input_error("accepted leaks", found=", ".join(unused), expected="names of findings", fix="take them out")
    if args.out:
        audit.write_findings(args.out, findings)
    compared = f"{len({member.key for member in members})} cases compared by name and patient, {len(cases)} by image"
    open_leaks = [item for item in findings if not item.is_accepted]
    print(_table(findings) if findings else "", f"{compared}: {len(findings)} leak(s)", sep="\n" if findings else "")
    for item in open_leaks:
        print(f"leak {item.name}: {item.train_task} {item.train_cases} reaches {item.test_task} {item.test_cases}")
    if open_leaks and args.config:
        print("fix the split, or name a leak in data.accept_leaks to go on with it, such as images only alike")
    return 1 if open_leaks else 0


def _inputs(args: argparse.Namespace):
    from segbench.data.audit import inputs as audit_inputs
    from segbench.experiment.config import load_config

    if args.config:
        from segbench.data.audit.weights import weights_findings

        config = load_config(args.config)
        members, cases = audit_inputs.members_of_run(config)
        return members, cases, weights_findings(config, members), [*config.data.accept_leaks, *args.accept]
    if args.splits:
        return [member for path in args.splits for member in audit_inputs.members_of_file(path)], [], [], args.accept
    return *audit_inputs.members_of_folders(args.data), [], args.accept


def _cache(args: argparse.Namespace) -> Path | None:
    """Fingerprints are kept beside the preprocessed cases of a run; the other forms leave nothing behind."""
    from segbench.core.paths import PREPROCESSED_ROOT

    return PREPROCESSED_ROOT / "fingerprints" if args.config else None


def _table(findings) -> str:
    from tabulate import tabulate

    head = ["kind", "relation", "fold", "training", "test", "evidence", "accepted"]
    rows = [
        [
            item.kind,
            item.relation,
            item.fold,
            f"{item.train_task}: {item.train_cases}",
            f"{item.test_task}: {item.test_cases}",
            item.evidence,
            "yes" if item.is_accepted else "no",
        ]
        for item in findings
    ]
    return tabulate(rows, headers=head, tablefmt="simple", disable_numparse=True, maxcolwidths=[None] * 3 + [40] * 3)
