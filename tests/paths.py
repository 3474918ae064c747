"""Where the repository and the optional shared material lie; tests that want the latter skip when it is absent."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
