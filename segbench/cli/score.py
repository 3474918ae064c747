"""Score predictions of any model against references: files or folders, every convention named."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from segbench.core.paths import SCORES

if TYPE_CHECKING:
    from segbench.core.errors import Problem

EXAMPLE = "python -m segbench score --reference labels/ --prediction masks/ --labels 1=liver,2=tumour --out scores.csv"
DEFAULT_METRICS = ("dice", "hd95", "hd95_max")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--reference", type=Path, required=True, help="reference label map, or a folder of them")
    parser.add_argument("--prediction", type=Path, required=True, help="predicted label map, or a folder of them")
    parser.add_argument("--labels", default="", help="structures: 1=liver,2=tumour or organ=1+2, comma-separated")
    parser.add_argument(
        "--structures-from-files",
        action="store_true",
        help="instead of --labels: a folder per case, a mask (0 and one other value) per structure, named by the "
        "structure",
    )
    parser.add_argument(
        "--patient",
        metavar="{file,folder,top-folder,REGEX}",
        help="what one patient is: a file, the folder that it is in, the outermost folder, or what a regular "
        "expression (its group, if it has one) finds in the name of a case: 'sub-[^_/]+'",
    )
    parser.add_argument("--out", type=Path, required=True, help="table to write")
    parser.add_argument(
        "--metrics", help=f"comma-separated, or `all`; default: {','.join(DEFAULT_METRICS)} where the engine has it"
    )
    parser.add_argument("--tolerance", action="append", default=[], metavar="NAME=MM", help="tolerance for NSD, mm")
    parser.add_argument("--lesion", action="append", default=[], metavar="NAME", help="score a structure lesion-wise")
    parser.add_argument(
        "--ignore-labels",
        default="",
        help="values of the reference that mark voxels which count nowhere (not annotated)",
    )
    parser.add_argument("--other-labels", default="", help="values that are allowed and count as background")
    parser.add_argument("--engine", choices=["segbench", "medpy"], default="segbench", help="who computes the values")
    parser.add_argument("--workers", type=int, default=1, help="cases scored at once, one thread each")
    parser.add_argument("--nominal-spacing", action="store_true", help="the header's spacing is not the true one")
    parser.add_argument("--model", default="external", help="value of the column `model`")
    parser.add_argument("--task", default="external", help="value of the columns `dataset` and `task`")


def run(args: argparse.Namespace) -> int:
    """Score every case and write the table whole or not at all."""
    from segbench.cli._counts import count_problems
    from segbench.core.errors import input_error, raise_problems
    from segbench.evaluation.label_maps import LARGEST_LABEL, MASK_VALUE
    from segbench.evaluation.rows import write_rows
    from segbench.evaluation.score_files import Request, pairs, score_all

    if bool(args.labels.strip()) == args.structures_from_files:
        raise input_error(
            "--labels, --structures-from-files", found="both or none", expected="one of them", fix="name the structures"
        )
    raise_problems([*count_problems(workers=(args.workers, 1)), *_blank_names(model=args.model, task=args.task)])
    if args.out.is_dir():
        raise input_error("--out", found=f"{args.out} is a folder", expected="a file", fix=f"write {args.out / SCORES}")
    if args.structures_from_files:
        cases = pairs(args.reference, args.prediction, patient=args.patient, structures_from_files=True)
        labels = dict.fromkeys(sorted({pair.structure or "" for pair in cases}), (1,))
    else:
        labels = parse_labels(args.labels)
        cases = pairs(args.reference, args.prediction, patient=args.patient)
    structures = structures_of(labels, tolerances=args.tolerance, lesions=args.lesion)
    ignored, other = (
        frozenset(_whole(value, option, least=-LARGEST_LABEL) for value in text.split(",") if value.strip())
        for option, text in (("--ignore-labels", args.ignore_labels), ("--other-labels", args.other_labels))
    )
    scored_values = {value for item in structures for value in item.labels}
    raise_problems(_overlap_problems(ignored, other, scored_values))
    request = Request(
        structures=structures,
        labels=frozenset({0, *ignored, *other, *({MASK_VALUE} if args.structures_from_files else scored_values)}),
        ignored=ignored,
        metrics=parse_metrics(args.metrics, args.engine),
        engine=args.engine,
        spacing_is_nominal=args.nominal_spacing,
        model=args.model,
        task=args.task,
    )
    scored = score_all(cases, request, workers=args.workers)
    write_rows(args.out, scored.rows)
    missing = sum(pair.prediction is None for pair in cases)
    count, patients = (len({getattr(pair, name) for pair in cases}) for name in ("case", "patient"))
    people = f" of {patients} patient(s)" if patients != count else ""
    print(f"{args.out}: {len(scored.rows)} rows of {count} cases{people}, {missing} prediction(s) missing")
    for item in structures:
        if not any(scored.cases_with_label[value] for value in item.labels):
            print(f"note: {item.name} ({'+'.join(map(str, item.labels))}) occurs in no file")
    for notice, number in scored.cases_with_notice.items():
        print(f"notice: {notice}, in {number} of {len(cases)} cases")
    hidden = sum(scored.cases_with_label[value] for value in ignored)
    if hidden:
        print(f"notice: ignored voxels (label {', '.join(map(str, sorted(ignored)))}) count nowhere")
    return 0


def _overlap_problems(ignored: frozenset[int], other: frozenset[int], scored: set[int]) -> list[Problem]:
    from segbench.core.errors import Problem

    fix = "remove them from one of the options"
    problems = []
    if twice := sorted(ignored & (scored | other | {0})):
        expected = "values that mark voxels without annotation"
        problems.append(Problem("--ignore-labels", f"{twice}, which are scored or background", expected, fix))
    if twice := sorted(other & scored):
        problems.append(Problem("--other-labels", f"{twice}, which are scored", "values that count as background", fix))
    return problems


def _blank_names(**names: str) -> list[Problem]:
    from segbench.core.errors import Problem

    return [
        Problem(f"--{option}", "a blank name", "a name for the score table", "write it, or leave the option out")
        for option, name in names.items()
        if not name.strip()
    ]


def parse_metrics(text: str | None, engine: str) -> tuple[str, ...]:
    """Return metric names, each once; an unknown one, or one that the engine lacks, raises InputError."""
    from segbench.core.errors import input_error, suggestion
    from segbench.evaluation.score_files import MEDPY
    from segbench.metrics import METRICS

    known = MEDPY if engine == "medpy" else METRICS
    if text is None:
        return tuple(name for name in DEFAULT_METRICS if name in known)
    names = tuple(known) if text == "all" else tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in known:
            raise input_error(
                "--metrics", found=repr(name), expected=f"a metric of {engine}", fix=suggestion(name, known)
            )
    return names


def parse_labels(text: str) -> dict[str, tuple[int, ...]]:
    """Return structure -> label values of `1=liver` or `organ=1+2`, comma-separated."""
    from segbench.core.errors import input_error

    labels: dict[str, tuple[int, ...]] = {}
    for item in text.split(","):
        left, _, right = (part.strip() for part in item.partition("="))
        if not left or not right:
            raise input_error(
                "--labels", found=repr(item), expected="1=liver or organ=1+2", fix="name value and structure"
            )
        name, values = (right, left) if set(left) <= set("0123456789+ ") else (left, right)
        if name in labels:
            raise input_error(
                "--labels", found=f"{name!r} twice", expected="each structure once", fix=f"write {name}=1+2"
            )
        labels[name] = tuple(dict.fromkeys(_whole(value, "--labels") for value in values.split("+")))
        if 0 in labels[name]:
            raise input_error("--labels", found=repr(item), expected="labels from 1", fix="0 is the background")
    return labels


def structures_of(labels: dict[str, tuple[int, ...]], *, tolerances: list[str], lesions: list[str]) -> tuple:
    """Return the structures with tolerances in mm (not a number: none stated)."""
    from segbench.core.errors import input_error, suggestion
    from segbench.core.task import Structure

    stated = _tolerances(tolerances)
    for name in [*stated, *lesions]:
        if name not in labels:
            raise input_error(
                "--tolerance or --lesion",
                found=repr(name),
                expected="a structure of --labels",
                fix=suggestion(name, labels),
            )
    return tuple(
        Structure(name, values, stated.get(name, float("nan")), name in lesions) for name, values in labels.items()
    )


def _whole(value: str, where: str, least: int = 0) -> int:
    """Return a label value; values that nobody scores may be negative."""
    from segbench.core.errors import input_error
    from segbench.evaluation.label_maps import LARGEST_LABEL

    text = value.strip()
    digits = text.removeprefix("-")
    is_whole = digits.isascii() and digits.isdigit() and len(digits) < 10
    if not (is_whole and least <= int(text) <= LARGEST_LABEL):
        expected = f"a whole label value from {least} to {LARGEST_LABEL}"
        fix = "write 1=liver or organ=1+2" if where == "--labels" else "write the values, comma-separated: 255 or 8,9"
        raise input_error(where, found=repr(value), expected=expected, fix=fix)
    return int(text)


def _tolerances(texts: list[str]) -> dict[str, float]:
    from segbench.core.errors import input_error

    stated: dict[str, float] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        if name in stated:
            raise input_error("--tolerance", found=f"{name!r} twice", expected="each structure once", fix="remove one")
        try:
            stated[name] = float(value)
        except ValueError as error:
            raise input_error("--tolerance", found=repr(text), expected="NAME=MM", fix="give a number in mm") from error
        if not 0 <= stated[name] < float("inf"):
            raise input_error(
                "--tolerance", found=repr(text), expected="a tolerance of 0 mm or more", fix="write NAME=MM"
            )
    return stated
