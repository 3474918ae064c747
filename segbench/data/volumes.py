"""The one reader of image and label files: grid in mm, voxels, and what the header leaves open.

NIfTI and other formats come through nibabel, NRRD and MetaImage (`.nrrd`, `.mha`) through SimpleITK. Affines map voxel
indices to RAS+ millimetres whatever the unit in the header. Axes of length 1 after the third are removed, so a volume
has 3 axes, or 4 with channels last. Every command compares grids with `grid_difference`. Axis legend: X Y Z native.
"""

from __future__ import annotations

import gzip
import logging
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np

from segbench.core.errors import InputError, input_error, short

SUFFIXES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha")
READ_BY_ITK = (".nrrd", ".mha")
FORMATS = "NIfTI (.nii, .nii.gz), .nrrd or .mha"
GRID_TOLERANCE = 0.05
"""Largest shift between two grids, at their worst corner, as a fraction of the smallest voxel side."""
WHOLE_TOLERANCE = 1e-6  # of the largest value: rounding of a scale factor that is stored as float32
MM_PER_UNIT = {"unknown": 1.0, "meter": 1000.0, "cm": 10.0, "mm": 1.0, "micron": 0.001}
NIFTI_UNITS = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}
UNIT_WORDS = {
    word: unit
    for unit, words in {
        "meter": ("m", "meter", "metre"),
        "cm": ("cm", "centimeter", "centimetre"),
        "mm": ("mm", "millimeter", "millimetre"),
        "micron": ("um", "\N{MICRO SIGN}m", "\N{GREEK SMALL LETTER MU}m", "micron", "micrometer", "micrometre"),
    }.items()
    for word in (*words, *(f"{word}s" for word in words if len(word) > 2))
}
NRRD_SPACES = {"ras", "las", "lps", "right-anterior-superior", "left-anterior-superior"} | {
    "left-posterior-superior",
    "rast",
    "last",
    "lpst",
}  # what ITK turns into its own axes; it takes the numbers of any other space as they are
GZIP_MAGIC = b"\x1f\x8b"
CHUNK_BYTES = 2**20
NIFTI_STARTS = {size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big")}  # sizeof_hdr
HEADER_BYTES = 2**20  # of text that is searched for the end of an NRRD or MetaImage header
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    zlib.error,
    nib.filebasedimages.ImageFileError,
    OverflowError,
    nib.spatialimages.HeaderDataError,
    MemoryError,
)  # what reading a damaged or foreign file raises; SimpleITK's RuntimeError becomes OSError here
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # it names no file; the checks say what matters


@dataclass(frozen=True)
class Volume:
    """An opened file; voxels are read when asked for.

    shape: 3 axes, or 4 with channels last. affine: 4x4, to RAS+ mm. unit: that of the header. is_oriented: whether the
    header says how the axes lie in the patient. has_spacing: whether it says the voxel sizes. header: the NIfTI header
    as stored, None for other formats. forms: "qform" and "sform" of a NIfTI, those that it states and that are affines,
    with their codes.
    """

    path: Path
    shape: tuple[int, ...]
    affine: np.ndarray
    dtype: np.dtype
    unit: str
    is_oriented: bool
    header: nib.Nifti1Header | None
    stored: Callable[[], np.ndarray]
    has_spacing: bool = True
    forms: Mapping[str, tuple[np.ndarray, int]] = field(default_factory=dict)

    @property
    def mm_per_unit(self) -> float:
        """Millimetres of one unit of length in the header."""
        return MM_PER_UNIT[self.unit]

    @property
    def spacing_mm_xyz(self) -> tuple[float, float, float]:
        """Voxel sizes along the axes of the array."""
        x, y, z = (float(size) for size in nib.affines.voxel_sizes(self.affine))
        return x, y, z

    @property
    def orientation(self) -> str:
        """Axis codes such as RAS."""
        return _codes(self.affine)

    def voxels(self) -> np.ndarray:
        """Return the voxel values, scale factors applied; one of `UNREADABLE` is raised for a damaged file."""
        return self.stored().reshape(self.shape, order="A")

    def channels(self) -> list[np.ndarray]:
        """Return one array per channel."""
        data = self.voxels()
        return [data] if data.ndim == 3 else list(np.moveaxis(data, -1, 0))


def open_volume(path: Path | str) -> Volume:
    """Open an image or label file without reading its voxels.

    Raises:
        InputError: for a unit of length that is not known, for voxels in a second file, and for a name that says
            compressed of a file that is not, or the other way round.
        OSError: or another of `UNREADABLE`, for a file that cannot be opened.
    """
    path = Path(path)
    return _opened_by_itk(path) if path.name.lower().endswith(READ_BY_ITK) else _opened_by_nibabel(path)


def readable_volume(path: Path | str) -> Volume:
    """Open a file as `open_volume`; what cannot be opened raises InputError as well."""
    try:
        return open_volume(path)
    except UNREADABLE as error:
        raise_if_input_error(error)
        found = f"a file that cannot be read ({short(error)})"
        raise input_error(path, found=found, expected=FORMATS, fix="get the file again") from error


def raise_if_input_error(error: Exception) -> None:
    """Raise an InputError again: it is a ValueError, and so one of `UNREADABLE`."""
    if isinstance(error, InputError):
        raise error


def grid_difference(
    reference: tuple[Sequence[int], np.ndarray], other: tuple[Sequence[int], np.ndarray], *, both_oriented: bool = True
) -> tuple[str, str, str] | None:
    """Return (found, expected, fix) when a volume is not on the grid of another one, else None.

    Args:
        reference: shape (3 axes) and affine (mm) of the grid that is expected.
        other: shape and affine of the volume in question.
        both_oriented: whether both headers say how the axes lie in the patient, or neither does.

    Returns:
        None when no corner of the volume moves by more than `GRID_TOLERANCE` of the smallest voxel side.
    """
    difference = _differs(reference, other)
    if difference and not both_oriented and tuple(reference[0][:3]) == tuple(other[0][:3]):
        return (
            "a header that says how the axes lie in one of the two files only (sform, qform or space)",
            "the same grid in both headers",
            "look at both in a viewer; when their axes agree, copy the header that says it (in nibabel: its affine)",
        )
    return difference


def _differs(
    reference: tuple[Sequence[int], np.ndarray], other: tuple[Sequence[int], np.ndarray]
) -> tuple[str, str, str] | None:
    """Return the words of a refusal; axis codes only word it, because near 45 degrees a tiny turn changes them."""
    (shape, affine), (found_shape, found_affine) = reference, other
    shape, found_shape = tuple(shape[:3]), tuple(found_shape[:3])
    shift_mm = _largest_shift_mm(shape, affine - found_affine)
    limit_mm = GRID_TOLERANCE * float(nib.affines.voxel_sizes(affine).min())
    if shape == found_shape and shift_mm <= limit_mm:
        return None
    codes, found_codes = (_codes(item) for item in (affine, found_affine))
    if codes != found_codes:
        return (
            f"orientation {found_codes} and shape {found_shape}",
            f"{codes} and {shape}",
            "reorient it to the other volume's axes, voxels and header together",
        )
    if shape != found_shape:
        return f"shape {found_shape}", f"{shape}", "resample it to the other volume's grid"
    return (
        f"an affine that differs: corners lie up to {shift_mm:.3g} mm apart",
        f"the same grid within {limit_mm:.3g} mm",
        "write it on the other volume's grid, with that header (in nibabel: its affine)",
    )


def _largest_shift_mm(shape: tuple[int, ...], change: np.ndarray) -> float:
    """Return how far the corner of a volume that moves most moves under a change of its affine (mm)."""
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape], [1], indexing="ij")).reshape(4, -1)
    return float(np.linalg.norm((change @ corners)[:3], axis=0).max())


def _codes(affine: np.ndarray) -> str:
    return "".join(code or "?" for code in nib.aff2axcodes(affine))


def whole_numbers(labels: np.ndarray) -> np.ndarray:
    """Return labels as they are, without the noise of a scale factor: 1.00000001 is 1. Other fractions stay."""
    if labels.dtype.kind != "f" or not labels.size or not np.isfinite(labels).all():
        return labels
    near = np.round(labels)
    difference = np.abs(labels - near)
    if not difference.any():
        return labels
    return np.where(difference <= WHOLE_TOLERANCE * max(1.0, float(np.abs(near).max())), near, labels)


def _kept_axes(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(size) for size in (*shape[:3], *(size for size in shape[3:] if size != 1)))


def _opened_by_nibabel(path: Path) -> Volume:
    _refuse_other_compression(path)
    try:
        image = nib.load(path)
    except ValueError as error:
        if "w2 should be positive" not in str(error):
            raise
        found, fix = "a qform whose quaternion (b, c, d) is longer than 1, and no sform", "set one of them again"
        raise input_error(path, found=found, expected="the rotation of a grid", fix=fix) from error
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise OSError("no volume")
    unit, is_oriented, header, affine, forms = "mm", True, None, image.affine, {}
    if isinstance(image, nib.analyze.AnalyzeImage):  # NIfTI is one
        if not isinstance(image, nib.Nifti1Image):
            raise _second_file(path, "a header")
        unit = _nifti_unit(path, int(image.header["xyzt_units"]) & 7)
        forms = _forms(image.header, MM_PER_UNIT[unit])
        is_oriented = bool(forms)
        affine = np.diag([MM_PER_UNIT[unit]] * 3 + [1.0]) @ affine
        with nib.openers.ImageOpener(str(path)) as stream:
            header = image.header_class.from_fileobj(stream, check=False)
    return Volume(
        path,
        _kept_axes(image.shape),
        affine,
        image.get_data_dtype(),
        unit,
        is_oriented,
        header,
        lambda: _whole_array(image) if path.name.lower().endswith(".nii.gz") else np.asarray(image.dataobj),
        forms=forms,
    )


def _forms(header: nib.Nifti1Header, mm_per_unit: float) -> dict[str, tuple[np.ndarray, int]]:
    """Return the forms (mm) of a header as nibabel corrects it: a qfac of 0 is 1, an unknown code is 0."""
    found = {}
    for form in ("qform", "sform"):
        try:
            matrix, code = getattr(header, f"get_{form}")(coded=True)
        except ValueError:  # a quaternion that is longer than 1
            continue
        if matrix is not None and np.isfinite(matrix).all():
            found[form] = (np.diag([mm_per_unit] * 3 + [1.0]) @ matrix, int(code))
    return found


def _whole_array(image: nib.Nifti1Image) -> np.ndarray:
    """Return the voxels of a compressed NIfTI, read to its end, where the checksum of the contents is."""
    with gzip.open(image.get_filename()) as stream:
        data = np.asarray(type(image).from_stream(stream).dataobj)
        while stream.read(CHUNK_BYTES):
            pass
    return data


def _refuse_other_compression(path: Path) -> None:
    """Refuse a NIfTI whose name says that it is compressed while it is not, or the other way round."""
    with open(path, "rb") as stream:
        start = stream.read(4)
    name = path.name.lower()
    if name.endswith(".nii") and start.startswith(GZIP_MAGIC):
        found, fix = "a compressed file under the name .nii", "rename it to .nii.gz"
    elif name.endswith(".nii.gz") and start in NIFTI_STARTS:
        found, fix = "a file under the name .nii.gz that is not compressed", "rename it to .nii"
    else:
        return
    raise input_error(path, found=found, expected="a name that says how the file is stored", fix=fix)


def _nifti_unit(path: Path, code: int) -> str:
    if code not in NIFTI_UNITS:
        known = ", ".join(f"{number} ({unit})" for number, unit in NIFTI_UNITS.items())
        raise input_error(path, found=f"the unit of length {code} in xyzt_units", expected=known, fix=_SAY_UNIT)
    return NIFTI_UNITS[code]


_SAY_UNIT = "set it to the unit in which the voxel sizes are (in nibabel: header.set_xyzt_units('mm'))"


def _opened_by_itk(path: Path) -> Volume:
    import SimpleITK  # imported where it is used: it costs a third of a second

    with open(path, "rb") as stream:
        text = stream.read(HEADER_BYTES)
    fields, start = _header_fields(text)
    data_file = fields.get("data file", fields.get("datafile", fields.get("elementdatafile", "LOCAL")))
    if data_file != "LOCAL":
        raise _second_file(path, f"the name {data_file[:40]!r}")
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise OSError(_last_line(error)) from error
    size, dimension = reader.GetSize(), reader.GetDimension()
    components = reader.GetNumberOfComponents()
    shape = (*size, components) if components > 1 else size
    affine = np.eye(4)
    if dimension >= 3:
        direction = np.reshape(reader.GetDirection(), (dimension, dimension))[:3, :3]
        affine[:3, :3] = direction @ np.diag(reader.GetSpacing()[:3])
        affine[:3, 3] = reader.GetOrigin()[:3]
    unit = _itk_unit(path, fields)
    affine[:3] *= MM_PER_UNIT[unit]
    space = fields.get("space", "").lower().split(";")[0].strip()
    is_oriented = space in NRRD_SPACES if text.startswith(b"NRRD") else bool(fields.keys() & _ORIENTING)
    dtype = _itk_dtype(SimpleITK.GetPixelIDValueAsString(reader.GetPixelIDValue()))

    def voxels() -> np.ndarray:
        _refuse_damaged(path, fields, start, math.prod(shape) * dtype.itemsize)
        try:
            data = SimpleITK.GetArrayFromImage(reader.Execute())
        except RuntimeError as error:
            raise OSError(_last_line(error)) from error
        axes = tuple(range(dimension))[::-1] + ((dimension,) if components > 1 else ())
        return data.transpose(axes)

    has_spacing = any(re.search(r"\d", fields.get(name, "")) for name in _SIZING)  # nan and none say nothing
    return Volume(path, _kept_axes(shape), LPS_TO_RAS @ affine, dtype, unit, is_oriented, None, voxels, has_spacing)


_ORIENTING = {"transformmatrix", "orientation", "rotation"}
_SIZING = {"spacings", "space directions", "elementspacing", "elementsize"}


def _refuse_damaged(path: Path, fields: dict[str, str], start: int, expected: int) -> None:
    """Raise EOFError or zlib.error for voxels that end early or are not those that were packed.

    ITK returns whatever it could unpack, and asks for no checksum. start: of the voxels; expected: their bytes.
    """
    if fields.get("compresseddata", "").lower() == "true" and "compresseddatasize" not in fields:
        raise OSError("a header with CompressedData and without CompressedDataSize")
    is_packed = fields.get("encoding") in ("gzip", "gz") or fields.get("compresseddata", "").lower() == "true"
    if is_packed and "line skip" not in fields:
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS + 32)  # zlib's or gzip's header, as it says
        with open(path, "rb") as stream:
            stream.seek(start)
            while not unpacker.eof:
                packed = unpacker.unconsumed_tail or stream.read(CHUNK_BYTES)
                if not packed:
                    raise EOFError("the file ends before its voxels do")
                unpacker.decompress(packed, CHUNK_BYTES)
    elif fields.get("binarydata", "").lower() == "true" and path.stat().st_size - start < expected:
        raise EOFError("the file ends before its voxels do")


def _header_fields(text: bytes) -> tuple[dict[str, str], int]:
    """Return the fields of an NRRD (`field: value`) or MetaImage (`Field = value`) header, and where it ends.

    Names are in small letters.
    """
    fields = {}
    end = 0
    for line in text.split(b"\n"):
        end += len(line) + 1
        if not line.strip():
            break
        match = re.match(rb"([A-Za-z][A-Za-z ]*?)\s*(?::|=)\s*(?!=)(.*)", line)
        if match:
            name = match.group(1).decode("ascii").lower()
            fields[name] = match.group(2).decode("utf-8", "replace").strip()
            if name == "elementdatafile":
                break
    return fields, end


def _itk_unit(path: Path, fields: dict[str, str]) -> str:
    stated = fields.get("space units", fields.get("units", fields.get("distanceunits", "")))
    words = {word.strip().lower() for word in re.findall(r'"([^"]*)"', stated) or [stated]} - {"", "?", "none", "???"}
    units = {UNIT_WORDS.get(word, word) for word in words}
    if not units:
        return "unknown"
    if len(units) > 1 or not units <= MM_PER_UNIT.keys():
        raise input_error(
            path,
            found=f"units of length {stated[:60]}",
            expected="one of mm, um, cm, m",
            fix="write the file again with voxel sizes in mm",
        )
    return units.pop()


def _itk_dtype(name: str) -> np.dtype:
    match = re.search(r"(8|16|32|64)-bit (?:(un)?signed (integer)|float)", name)
    if match is None or "complex" in name:
        return np.dtype([("other", "V1")])
    bits, unsigned, integer = match.groups()
    kind = "f" if integer is None else "u" if unsigned else "i"
    return np.dtype(f"{kind}{int(bits) // 8}")


def _second_file(path: Path, found: str) -> Exception:
    return input_error(
        path,
        found=f"{found} of a second file with the voxels",
        expected="header and voxels in one file, so that its hash covers both",
        fix="save it again as .nii.gz, .nrrd or .mha",
    )


def _last_line(error: RuntimeError) -> str:
    return [line for line in str(error).splitlines() if line.strip()][-1]


def expected_bytes(volume: Volume) -> int:
    """Return the bytes of the voxels that a header expects."""
    return math.prod(volume.shape) * volume.dtype.itemsize
