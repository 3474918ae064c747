"""Pack a finished run for a reviewer, or join the bundles of several sites; no image, no weights.

A bundle holds scores, record, report, config, splits, findings of the leak audit and the pinned environment. Bundles of
one experiment are joined when all that makes their cells comparable agrees; otherwise each disagreement is printed,
nothing is written, and the status is 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m segbench bundle demo --out demo.zip"
MOST_LINES = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "name", metavar="RUN", nargs="?", help="name of the run, whose results are in results/RUN; or of the joined one"
    )
    parser.add_argument("--out", type=Path, required=True, help="zip file to write")
    parser.add_argument("--pseudonymise", action="store_true", help="replace ids of patients and cases by numbers")
    parser.add_argument("--join", type=Path, nargs="+", metavar="BUNDLE", help="bundles of several sites to join")


def run(args: argparse.Namespace) -> int:
    """Write the bundle, and say how to check it."""
    from segbench.core.errors import RunFailed, input_error

    if args.join:
        from segbench.reporting.join import join_bundles

        if args.pseudonymise:
            fix = "each site gives --pseudonymise when it packs its run"
            raise input_error("--pseudonymise", found="a join", expected="a run", fix=fix)
        found = join_bundles(args.join, args.out, run=args.name)
        print(*found[:MOST_LINES], sep="\n", end="\n" * bool(found))
        if found:
            rest = f", of which {MOST_LINES} are listed" if len(found) > MOST_LINES else ""
            raise RunFailed(f"the bundles disagree on {len(found)} facts{rest}; nothing is written")
    elif args.name is None:
        raise input_error("bundle", found="no run", expected="the name of a run, or --join", fix="name the run")
    else:
        from segbench.reporting.bundle import write_bundle

        write_bundle(args.name, args.out, pseudonymise=args.pseudonymise)
    print(f"{args.out}: check it with `python -m segbench verify {args.out}`")
    return 0
