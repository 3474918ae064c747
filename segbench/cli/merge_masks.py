"""Merge a mask per structure, in a folder per case, into a label map per case and a table of cases."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m segbench merge-masks Totals --image CT=ct.nii.gz --masks segmentations --structures liver,spleen"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="data set with a subfolder per case")
    parser.add_argument(
        "--image",
        action="append",
        required=True,
        metavar="CHANNEL=FILE",
        help="channel of the card, and its file in the folder of a case; once per channel",
    )
    parser.add_argument("--masks", default=".", metavar="NAME", help="folder of the masks in that of a case")
    parser.add_argument(
        "--structures", required=True, metavar="NAMES", help="mask files without suffix, in the order of class values"
    )


def run(args: argparse.Namespace) -> int:
    """Write `labels/` and `cases.csv` into the folder; say how many cases and masks, and what several masks claim."""
    from segbench.core.errors import Problem, raise_problems, some
    from segbench.data.structure_masks import LABELS, TABLE, merge_folder

    images = [item.partition("=") for item in args.image]
    structures = [name.strip() for name in args.structures.split(",")]
    problems = [
        Problem("--image", repr("".join(item)), "CHANNEL=FILE", "write CT=ct.nii.gz")
        for item in images
        if not (item[0] and item[2])
    ]
    for option, names in (("--image", [name for name, _, _ in images]), ("--structures", structures)):
        if not all(names) or len(set(names)) < len(names):
            problems.append(Problem(option, some(names), "names, each once", "fix the option"))
    raise_problems(problems)
    merged = merge_folder(
        args.folder,
        images={channel: file for channel, _, file in images},
        masks=args.masks,
        structures=structures,
    )
    for case, count in merged.shared_voxels.items():
        print(f"{case}: {count} voxel(s) in several masks; the last of --structures counts")
    for name, count in merged.with_mask.items():
        if count < merged.cases:
            print(f"{name}: a mask in {count} of {merged.cases} case(s); in the others nobody looked for it")
    print(f"{merged.cases} case(s) merged into {args.folder / LABELS} and {args.folder / TABLE}")
    return 0
