"""The command line: `python -m segbench COMMAND`; one file per command in this folder, found by name.

A command module has a one-line docstring (its help), `EXAMPLE`, `add_arguments(parser)` and `run(args) -> int`.
This package alone prints and sets the exit status: 0 success, 1 the run failed, 2 the user's input is wrong.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

from segbench import __version__
from segbench.core.errors import (
    InputError,
    Problem,
    RunFailed,
    is_machine_failure,
    path_problem,
    raise_problems,
    short,
)
from segbench.core.files import unwritable

LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"
WHOLE = (
    "the light installation holds verify, report and compare: install all with `make` (.venv), or pip install .[run]"
)
INTERRUPTED = 130  # what shells expect of a process that Ctrl-C ended


def commands() -> dict[str, str]:
    """Return command -> module of every file of this folder; an underscore in a file's name is a hyphen."""
    names = (info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))
    return {name.removesuffix("_command").replace("_", "-"): f"{__name__}.{name}" for name in names}


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; with `only`, import just that command's module, so that light commands stay light."""
    parser = argparse.ArgumentParser(prog="python -m segbench", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"segbench {__version__}")
    sub = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, module_name in sorted(commands().items()):
        if only is not None and command != only:
            continue
        module = importlib.import_module(module_name)
        child = sub.add_parser(
            command,
            help=(module.__doc__ or "").splitlines()[0],
            description=module.__doc__,
            epilog=f"example: {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(child)
        child.set_defaults(run=module.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    only = argv[0] if argv and argv[0] in commands() else None
    args = build_parser(only).parse_args(argv)
    try:
        raise_problems(_output_problems(args))
        return args.run(args)
    except InputError as error:
        for item in error.problems:
            print(item.line(), file=sys.stderr)
        return 2
    except RunFailed as error:
        print(f"segbench {args.command}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("segbench", "models"):
            raise
        print(f"segbench {args.command}: {error.name} is not installed; {WHOLE}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        print(f"segbench {args.command}: interrupted; what is done is kept, run again to go on", file=sys.stderr)
        return INTERRUPTED
    except (OSError, MemoryError) as error:
        problem = path_problem(error) if isinstance(error, OSError) else None
        if problem is not None:
            print(problem.line(), file=sys.stderr)
            return 2
        if not is_machine_failure(error):
            raise
        print(f"segbench {args.command}: {short(error)}; free memory or disk space and run again", file=sys.stderr)
        return 1


def _output_problems(args: argparse.Namespace) -> Iterator[Problem]:
    """Yield a problem of an output that cannot be written or is an input file, before the work that leads to it."""
    for option in ("out", "output"):
        path = getattr(args, option, None)
        if path is None:
            continue
        if found := unwritable(path):
            yield Problem(f"--{option}", found, "a folder in which you may write", "name another path")
        elif path.is_file() and any(path.samefile(other) for other in _input_files(args, option)):
            yield Problem(f"--{option}", f"{path}, a file that is read", "another file", "name another path")


def _input_files(args: argparse.Namespace, output: str) -> Iterator[Path]:
    """Yield the files that the other options name."""
    for name, value in vars(args).items():
        paths = value if isinstance(value, list) else [value]
        if name != output:
            yield from (path for path in paths if isinstance(path, Path) and path.is_file())
