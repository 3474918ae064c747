"""Agreement with original networks: judge golden files, or write docs/parity.md.

`python -m tests.golden.models.parity FILE.json [...]` prints for each file the network's name and the largest absolute
and relative difference, and exits with status 1 when one is above the tolerance, 2 when a file cannot be judged.
Without files it judges those beside the checkout and writes the page; `python -m segbench.documentation.models` puts
that into docs/models.md.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from segbench.core.errors import InputError
from segbench.core.files import write_text
from tests.golden.models.official import GOLDEN, TOLERANCE, TOLERANCES, compare, golden_name, official_modules, read
from tests.paths import ROOT

PAGE = ROOT / "docs" / "parity.md"


def judge(path: Path) -> bool:
    """Print one line per golden array and one for the file; return whether all lie within the tolerance."""
    name = golden_name(path, read(path)[0])
    limit = TOLERANCES.get(name, TOLERANCE)
    _, rows = compare(path)
    for row in rows:
        inputs = "".join(f", {key} {value}" for key, value in row.inputs.items())
        cut = f" at stride {row.stride}" if row.stride > 1 else ""
        print(
            f"  case {row.case}{inputs}, {row.output}{cut}: absolute {row.difference:.2e}, relative {row.relative:.2e}"
        )
    absolute, relative = max(row.difference for row in rows), max(row.relative for row in rows)
    agrees = relative <= limit
    result = "agrees" if agrees else "DIFFERS"
    print(f"{name} ({path.name}): {result}, absolute {absolute:.2e}, relative {relative:.2e}, accepted {limit:.0e}")
    return agrees


def parity_page(paths: Sequence[Path]) -> str:
    """Return the page as text."""
    lines = [
        "## Agreement with the original networks",
        "",
        "Weights are filled by a rule from their names, inputs by seed; compared are the outputs of the original "
        "networks (float32, CPU, evaluation mode). The relative difference is a fraction of the output's largest "
        f"magnitude; accepted is {TOLERANCE:g}, for the encoder of DeSD 0.001. By "
        f"`python -m tests.golden.models.parity` with PyTorch {torch.__version__.split('+')[0]} on "
        f"{platform.machine()}.",
        "",
        "| original | file here | parameters | compared outputs | largest difference | largest relative difference |",
        "|---|---|---|---|---|---|",
    ]
    for path in paths:
        name = golden_name(path, read(path)[0])
        network, rows = compare(path)
        size = sum(parameter.numel() for parameter in network.parameters())
        module = official_modules()[name].__name__.replace(".", "/")
        difference, relative = max(row.difference for row in rows), max(row.relative for row in rows)
        lines.append(
            f"| `{name}` | `{module}` | {size:,} | {len(rows)} | {difference:.1e} | {relative:.1e} |",
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Judge the named files and return the exit status; without names, write the page."""
    try:
        if arguments:
            agree = [judge(Path(argument)) for argument in arguments]
            return 0 if all(agree) else 1
        write_text(PAGE, parity_page([GOLDEN / f"{name}.json" for name in sorted(official_modules())]))
    except InputError as error:
        for problem in error.problems:
            print(problem.line(), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
