"""Who made a result: commit, hash of the config, versions, host."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from segbench import __version__
from segbench.core.code import ROOT

PACKAGES = ("torch", "monai", "numpy", "scipy", "pandas", "nibabel", "batchgeneratorsv2", "edt", "snakemake")


def content_hash(content: object) -> str:
    """Return the SHA-256 of a JSON-serialisable object."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def commit() -> str:
    """Return the commit of the checkout, '+changes' when it differs, or 'not a git checkout'."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!reports"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
    return head + ("+changes" if changed else "")


def versions() -> dict[str, str]:
    """Return the versions of Python, segbench and the packages that shape results; absent ones are named so."""
    found = {"python": platform.python_version(), "segbench": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def portable(text: str, data_root: Path | str) -> str:
    """Return a message without the folders of this machine, because reports with it are published."""
    folders = {
        Path(data_root): "<data>",
        Path(data_root).resolve(): "<data>",
        Path.cwd(): "<run>",
        ROOT: "<code>",
        Path.home(): "<home>",
    }
    for folder, word in folders.items():
        text = text.replace(str(folder), word) if len(folder.parts) > 1 and folder.is_absolute() else text
    return text


def host() -> str:
    """Return the operating system and processor type, without the machine's name."""
    return f"{platform.system()} {platform.machine()}"
