"""Who made a result: commit, config hash, versions, host, and a fingerprint of the code that matters."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from segbench import __version__

ROOT = Path(__file__).resolve().parents[2]
TRAINING_CODE = (  # of every training job; the file of its model or objective comes beside it, see cards.code_of
    "models/blocks/attention.py",
    "models/backbone.py",
    "models/blocks/classes.py",
    "models/blocks/dynamic_head.py",
    "models/blocks/embeddings.py",
    "models/interface.py",
    "models/loader.py",
    "models/weights/official.py",
    "models/blocks/own_network.py",
    "models/weights/probe.py",
    "models/weights/transfer.py",
    "segbench/core/seeds.py",
    "segbench/data/sampling.py",
    "segbench/data/store.py",
    "segbench/data/transforms.py",
    "segbench/training/checkpoint.py",
    "segbench/training/data.py",
    "segbench/training/initialise.py",
    "segbench/training/loop.py",
    "segbench/training/losses.py",
    "segbench/training/objective.py",
    "segbench/training/views.py",
)
SCORING_CODE = ("segbench/metrics", "segbench/inference", "segbench/evaluation")
REPORTING_CODE = ("segbench/reporting", "segbench/stats", "segbench/metrics/registry.py")
PHANTOM_CODE = (
    "segbench/core/seeds.py",
    "segbench/data/phantoms/world.py",
    "segbench/data/phantoms/shapes.py",
    "segbench/data/phantoms/torso.py",
    "segbench/data/phantoms/mr.py",
)
AUDIT_CODE = ("segbench/data/audit/leaks.py", "segbench/data/audit/inputs.py", "segbench/data/audit/fingerprint.py")
PREPROCESSED_CODE = (
    "segbench/data/geometry.py",
    "segbench/data/resampling.py",
    "segbench/data/readers.py",
    "segbench/data/store.py",
    "segbench/data/volumes.py",
)
PREPROCESS_CODE = (*PREPROCESSED_CODE, "segbench/data/preprocess.py", "segbench/data/preprocessing_recipes.py")
PACKAGES = ("torch", "monai", "numpy", "scipy", "pandas", "nibabel", "batchgeneratorsv2", "edt", "snakemake")


def code_fingerprint(parts: Iterable[str]) -> str:
    """Return a hash of the Python files and folders named relative to the repository's root."""
    digest = hashlib.sha256()
    for part in parts:
        path = ROOT / part
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.exists() else []
        for file in files:
            digest.update(str(file.relative_to(ROOT)).encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


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
