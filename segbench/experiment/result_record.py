"""`record.json`, beside the files of a finished job: what they were made from, and what they are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.core.errors import InputError, input_error
from segbench.core.files import sha256_of, write_json
from segbench.core.paths import RECORD, WEIGHTS
from segbench.experiment.identity import Identity, part

MAKE_ANEW = "delete it: it is then made anew"


@dataclass(frozen=True)
class ResultRecord:
    """Identity and outcome of a job that went well; name -> (bytes, SHA-256) of the files that it left."""

    identity: Identity
    outcome: Mapping[str, Any]
    files: Mapping[str, tuple[int, str]]

    @classmethod
    def of(cls, folder: Path, identity: Identity, outcome: Mapping[str, Any], products: Iterable[str]) -> ResultRecord:
        """Return the record of the files of a job that has just ended."""
        files = {name: ((folder / name).stat().st_size, sha256_of(folder / name)) for name in products}
        return cls(identity, outcome, files)

    @property
    def weights_digest(self) -> str:
        """SHA-256 of the weights that a training left.

        An external model keeps its weights to itself: there it is the digest of the record, so that masks of another
        training are scored anew.
        """
        if WEIGHTS in self.files:
            return self.files[WEIGHTS][1]
        return part([self.identity.to_dict(), self.outcome.get("started")])

    def write(self, folder: Path) -> None:
        """Write the record, whole or not at all."""
        files = {name: list(facts) for name, facts in self.files.items()}
        write_json(folder / RECORD, {"identity": self.identity.to_dict(), "outcome": self.outcome, "files": files})

    def check_size(self, folder: Path, name: str) -> Path:
        """Return the path of a file whose size is the recorded one, which costs nothing to compare.

        Raises:
            InputError: the file is absent, or has another size.
        """
        path, (size, _) = folder / name, self.files.get(name, (0, ""))
        if not path.is_file():
            raise input_error(path, found="no file", expected="what its record names", fix="run again")
        if path.stat().st_size != size:
            raise self._other_content(path)
        return path

    def check_file(self, folder: Path, name: str) -> Path:
        """Return the path of a file; its size is compared first.

        Raises:
            InputError: the file is absent, or is not the one that was recorded.
        """
        path = self.check_size(folder, name)
        if sha256_of(path) != self.files.get(name, (0, ""))[1]:
            raise self._other_content(path)
        return path

    def _other_content(self, path: Path) -> InputError:
        size, digest = self.files.get(path.name, (0, ""))
        found = f"{path.stat().st_size} bytes of other content"
        expected = f"the {size} bytes that segbench wrote (SHA-256 {digest[:12]}...)"
        return input_error(path, found=found, expected=expected, fix=MAKE_ANEW)


def read_result(folder: Path) -> ResultRecord | None:
    """Return the record of a folder, None when there is none.

    Raises:
        InputError: the file is not what segbench wrote.
    """
    path = folder / RECORD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        identity = Identity.from_dict(content["identity"], path)
        files = {str(name): (int(size), str(digest)) for name, (size, digest) in content["files"].items()}
        return ResultRecord(identity, dict(content["outcome"]), files)
    except FileNotFoundError:
        return None
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"another form ({type(error).__name__})"
        raise input_error(path, found=found, expected="a record as segbench wrote it", fix=MAKE_ANEW) from error


def forget_result(folder: Path) -> None:
    """Remove the record before files of other inputs take the place of its files."""
    (folder / RECORD).unlink(missing_ok=True)
