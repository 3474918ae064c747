"""One normaliser of case names, used wherever names of different origin meet: lists, folders, predictions.

Two names are spellings of one case when they differ only in letter case, Unicode form, blanks, hyphens and underlines,
zeros before a number, a suffix of an image file, a folder such as `imagesTr`, or when one is the other with a channel
suffix (`_0000`) or with folders before it: `Case 01`, `case-1`, `case1.nii.gz`, `imagesTr/case_1_0000.nii.gz`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping

FILE_SUFFIX = re.compile(r"\.(nii(\.gz)?|(seg\.)?nrrd|mha|mhd|npz|npy|b2nd|pkl|h5|dcm)$")
CHANNEL = re.compile(r"_\d{4}$")
SEPARATORS = re.compile(r"[\s_-]+")
BEFORE_NUMBER = re.compile(r"(?<=[^\W\d_])_(?=\d)")
LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
BIDS_SUBJECT = re.compile(r"(?:^|/)(sub-[^_/.]+)")
LAYOUT_FOLDERS = frozenset(("imagestr", "imagests", "labelstr", "labelsts", "images", "labels", "."))


def normal_name(name: str) -> str:
    """Return a name in small letters, blanks as `_`, without the suffix of an image file and folders of a layout."""
    text = unicodedata.normalize("NFKC", name).casefold().strip().replace("\\", "/")
    folders = [part.strip() for part in text.split("/")]
    kept = [part for part in folders[:-1] if part not in LAYOUT_FOLDERS]
    return "/".join([*kept, re.sub(r"\s+", "_", FILE_SUFFIX.sub("", folders[-1]).strip())])


def plain_name(name: str) -> str:
    """Return a normal name in which every row of blanks, hyphens and underlines is one underline."""
    return SEPARATORS.sub("_", normal_name(name))


def named_alike(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that differ in letter case, Unicode form, blanks, hyphens and underlines only.

    Names keep the order in which they are given. Digits count: `lr0.01` and `lr0.1` are two models, while `case_01` and
    `case_1` are one case (`spelled_alike`).
    """
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(plain_name(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def bids_subject(name: str) -> str | None:
    """Return the subject that a name or path states in the way of BIDS (`sub-1_ses-2`, `sub-1/anat/t1`), else None."""
    found = BIDS_SUBJECT.search(name)
    return found.group(1) if found else None


def same_case_groups(names: Iterable[str]) -> dict[str, str]:
    """Return name -> the normal name of its case, among all names that meet.

    A channel suffix or folders are taken off only where the shorter name is there too: `la_0003` stays itself.
    """
    normal = {name: normal_name(name) for name in names}
    shortest: dict[str, str] = {}
    for text in sorted(set(normal.values()), key=lambda text: (len(text), text)):
        shortest.setdefault(_without_style(text), text)
    found = {}
    for name, text in normal.items():
        without_folders = text.rpartition("/")[2]
        candidates = [CHANNEL.sub("", without_folders), CHANNEL.sub("", text), without_folders, text]
        found[name] = next(shortest[bare] for bare in map(_without_style, candidates) if bare in shortest)
    return found


def _without_style(text: str) -> str:
    """Return a normal name without what people write in different ways: separators and zeros before a number."""
    return LEADING_ZEROS.sub("", BEFORE_NUMBER.sub("", SEPARATORS.sub("_", text)))


def spelled_alike(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of different names that are spellings of one case, each sorted."""
    groups = defaultdict(set)
    for name, case in same_case_groups(names).items():
        groups[case].add(name)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def matched(names: Iterable[str], known: Iterable[str]) -> Mapping[str, str]:
    """Return name -> known name, equal or spelled otherwise; names without a counterpart, or with two, are left out."""
    names, known = list(names), list(known)
    cases = same_case_groups([*names, *known])
    of_case = defaultdict(set)
    for name in known:
        of_case[cases[name]].add(name)
    found = {}
    for name in names:
        counterparts = {name} & set(known) or of_case[cases[name]]
        if len(counterparts) == 1:
            found[name] = next(iter(counterparts))
    return found
