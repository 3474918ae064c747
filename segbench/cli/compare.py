"""Compare methods from a per-case score table: intervals, paired tests, rankings and their stability.

Reads one or more CSV files in long form with the columns model, task, case, structure, metric and value, separated by
commas, semicolons or tabs; other columns of a score table (experiment, initialisation, seed, patient, status ...) are
used where present. A row that is in two files must agree. Writes the page of a report (index.html with tables/ and
figures/), the joined rows as scores.csv, and one CSV file per statistic.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from segbench.core.paths import PAGE, SCORES

EXAMPLE = "python -m segbench compare ours.csv theirs.csv --out comparison --missing-masks hd95.prediction_empty=300"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("scores", type=Path, nargs="+", help="long tables, one row per score")
    parser.add_argument("--out", type=Path, required=True, help="folder for the page, its tables and figures")
    parser.add_argument("--metric", action="append", default=[], help="metric to compare by; repeat; default: all")
    parser.add_argument(
        "--missing-masks",
        action="append",
        default=[],
        metavar="METRIC.STATUS=VALUE",
        help="what a status counts as: a number, 'exclude' or 'diagonal'; repeat",
    )
    parser.add_argument(
        "--lower-is-better", action="append", default=[], metavar="METRIC", help="direction of a metric"
    )
    parser.add_argument(
        "--higher-is-better", action="append", default=[], metavar="METRIC", help="direction of a metric"
    )
    parser.add_argument("--universal", action="append", default=[], metavar="MODEL", help="model for the transfer map")
    parser.add_argument("--single", action="append", default=[], metavar="MODEL", help="what it is held against")
    parser.add_argument(
        "--equivalence",
        action="append",
        default=[],
        metavar="METRIC=HALF_WIDTH",
        help="region of practical equivalence in the metric's unit; repeat",
    )
    parser.add_argument("--reference", metavar="METHOD", help="method that every other one is tested against first")
    parser.add_argument(
        "--decision-rule",
        choices=("mean", "ranks"),
        default="mean",
        help="what decides which method is better: the mean difference or the signed ranks",
    )
    parser.add_argument("--alpha", type=float, default=0.05, help="level of tests and intervals")
    parser.add_argument("--resamples", type=int, default=2000, help="draws of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws")


def run(args: argparse.Namespace) -> int:
    """Read and check everything, compute everything, then write."""
    from segbench.cli._comparison_files import option_problems, parse_equivalence, parse_missing_masks, write_tables
    from segbench.core.cards import dataset_cards
    from segbench.core.errors import raise_problems
    from segbench.reporting.comparison import control_names, run_of_table
    from segbench.reporting.page import render_run
    from segbench.stats.comparison import Options, compare
    from segbench.stats.joined import join_tables
    from segbench.stats.longtable import read_long
    from segbench.stats.methods import method_labels

    directions = {"lower_is_better": args.lower_is_better, "higher_is_better": args.higher_is_better}
    rows = join_tables({str(path): read_long(path, **directions, whole=False) for path in dict.fromkeys(args.scores)})
    present = rows["metric"].drop_duplicates().tolist()
    missing_masks, handling_problems = parse_missing_masks(args.missing_masks, present)
    rope, rope_problems = parse_equivalence(args.equivalence, present)
    labels = method_labels(rows)
    methods = labels.drop_duplicates().tolist()
    is_control = rows["model"].isin(control_names())
    competitors = labels[~is_control].drop_duplicates().tolist() or methods
    raise_problems([*option_problems(args, rows, methods, competitors), *handling_problems, *rope_problems])
    cards = dataset_cards()
    options = Options(
        metrics=list(dict.fromkeys(args.metric)) or present,
        missing_masks=missing_masks,
        alpha=args.alpha,
        rope=rope,
        resamples=args.resamples,
        seed=args.seed,
        reference=args.reference,
        rule=args.decision_rule,
        universal=args.universal,
        single=args.single,
        synthetic=[task for task in rows["task"].unique() if cards.get(task, {}).get("synthetic")],
    )
    shown = rows[rows["metric"].isin(options.metrics)]
    competing = shown[~is_control[shown.index]]
    tables = compare(competing if len(competing) else shown, options)
    report, content = run_of_table(
        shown,
        missing_masks=missing_masks,
        rule=args.decision_rule,
        alpha=args.alpha,
        reference=args.reference,
        equivalence=rope,
        seed=args.seed,
        sources=[path.name for path in dict.fromkeys(args.scores)],
    )
    write_tables(args.out, tables)
    render_run(report, args.out, {SCORES: content})
    if len(methods) == 1:
        print(
            f"one method only ({methods[0]}), so nothing is compared: give the scores of a second method, in the same "
            "table or as another file"
        )
    print(f"{len(methods)} methods on {rows['task'].nunique()} tasks: {args.out / PAGE}")
    return 0
