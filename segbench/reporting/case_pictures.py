"""Pictures of test cases: reference and predictions of all methods on the same three planes through the largest error.

`gather` draws them from the kept label maps; a report embeds those that its data set's card permits. Nothing is
predicted for them. A picture is an input of the report: run.json holds its SHA-256.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from PIL import Image

from segbench.core.case import Case, read_manifest
from segbench.core.errors import InputError
from segbench.core.files import sha256_of, write_bytes
from segbench.core.paths import RunPaths
from segbench.core.provenance import portable
from segbench.core.run_record import JobRecord, Method, Picture, ScoredTask
from segbench.core.task import IGNORED
from segbench.data.readers import read_image, read_label
from segbench.experiment import requests
from segbench.experiment.config import Config
from segbench.reporting.figures import LETTER_PT, wrapped
from segbench.reporting.metrics import about
from segbench.reporting.pictures import FOLDER
from segbench.reporting.run import Run
from segbench.reporting.style import INK, SMALLEST_PT, WIDTH_MM, method_styles
from segbench.reporting.tables import direction, shown, unit_of

CHOICES = ("worst", "median", "best", "most disagreement")
MOST_METHODS = 8
GREYS = 128
MIXTURES = (1, 0.75, 0.5, 0.25)
DOTS_PER_INCH = 110
MARGIN = 0.25
"""Part of the extent of all foreground that is shown around it, on each side."""
REFERENCE_COLOUR = "#ffee33"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Chosen:
    """A case of a task and why it is shown; values: method key -> mean over structures, in the metric's own unit."""

    case: str
    choice: str
    fold: int
    values: Mapping[tuple[str, str], float]


def draw_pictures(config: Config, run: Run) -> tuple[list[Picture], list[str]]:
    """Draw the chosen cases of every task into results/RUN/pictures; other pictures are removed.

    Per task the worst, the median and the best case by the mean over trained methods of the run's first metric, and the
    case whose methods differ most; the first seed of each method. A method without kept label maps, such as an external
    one, is not shown; a task without any has no picture.

    Returns:
        What run.json says of the pictures, and one notice for each reason why there is none.
    """
    paths, pictures = RunPaths(config.run), []
    without: list[str] = []
    notices: list[str] = []
    styles = method_styles([*run.methods, *run.self_supervised])
    for experiment in run.experiments:
        trained = [method for method in run.methods_of(experiment) if method.trained]
        for task in run.tasks(experiment):
            cases = {case.case_id: case for case in read_manifest(paths.manifest(task.name))}
            for chosen in _chosen(run, experiment, task, trained):
                maps = _kept(run, paths, experiment, task, trained, chosen)
                if not maps:
                    without.append(task.title)
                    break
                shown_methods = list(maps)[:MOST_METHODS]
                colours = [_visible(styles[experiment, *method.key]["color"]) for method in shown_methods]
                try:
                    content, slices_xyz = _drawn(
                        config, task, cases[chosen.case], {m.title: maps[m] for m in shown_methods}, colours
                    )
                except InputError as error:
                    text = portable(" ".join(str(error).split()), config.data_root)
                    notices.append(f"No picture of {task.title}, {chosen.case}: {text}")
                    continue
                name = f"{experiment}_{task.name}_{chosen.choice.replace(' ', '_')}.png"
                write_bytes(paths.root / FOLDER / name, content)
                pictures.append(
                    Picture(
                        experiment=experiment,
                        task=task.name,
                        case=chosen.case,
                        choice=chosen.choice,
                        file=name,
                        sha256=sha256_of(paths.root / FOLDER / name),
                        may_be_shown=bool(config.dataset_cards[task.name]["permits"]["show_images"]),
                        text=_text(run, shown_methods, chosen, others=len(trained) - len(shown_methods)),
                        slices_xyz=slices_xyz,
                        scores={
                            "/".join(method.key): round(value, 6)
                            for method in shown_methods
                            if np.isfinite(value := chosen.values.get(method.key, np.nan))
                        },
                    )
                )
    if without:
        named = ", ".join(dict.fromkeys(without))
        notices.insert(0, f"No pictures of {named}: no predicted label map is kept (inference.keep_predictions).")
    for notice in notices:
        log.warning("%s", notice)
    _remove_others(paths.root / FOLDER, pictures)
    return pictures, notices


def _remove_others(folder: Path, pictures: Sequence[Picture]) -> None:
    """Remove pictures of cases that were chosen before."""
    named = {picture.file for picture in pictures}
    for path in sorted(folder.glob("*.png")):
        if path.name not in named:
            path.unlink()


def _chosen(run: Run, experiment: str, task: ScoredTask, trained: Sequence[Method]) -> list[_Chosen]:
    metric = run.metrics[0]
    rows = run.counted_rows(experiment, metric)
    keys = [method.key for method in trained]
    rows = rows[(rows["task"] == task.name) & pd.MultiIndex.from_frame(rows[["model", "initialisation"]]).isin(keys)]
    if rows.empty:
        return []
    rows = rows[rows["seed"] == rows["seed"].min()]
    wide = rows.pivot_table(
        index=["fold", "case"], columns=["model", "initialisation"], values="scored", aggfunc="mean"
    )
    order = (wide.mean(axis=1) * direction(metric)).sort_values(ascending=False, kind="stable").index
    picks = [order[0], order[len(order) // 2], order[-1]]
    spread = wide.max(axis=1) - wide.min(axis=1)
    if (spread > 0).any():
        picks.append(spread.idxmax())
    chosen: dict[tuple, _Chosen] = {}
    for index, choice in zip(picks, CHOICES, strict=False):  # without the last where all methods agree
        values = {(str(model), str(start)): float(value) for (model, start), value in wide.loc[index].items()}
        chosen.setdefault(index, _Chosen(str(index[1]), choice, int(index[0]), values))
    return list(chosen.values())


def _kept(
    run: Run, paths: RunPaths, experiment: str, task: ScoredTask, trained: Sequence[Method], chosen: _Chosen
) -> dict[Method, Path]:
    """Return the label map of each method that has one, of its first seed; it must be the one that was scored."""
    found = {}
    for method in trained:
        jobs = [job for job in run.jobs(experiment, method.key) if _serves(job, task.name, chosen.fold)]
        for job in sorted(jobs, key=lambda job: job.seed)[:1]:
            path = paths.prediction(job.job, task.name, chosen.case)
            beside = requests.read(paths.prediction_identity(job.job, task.name, chosen.case))
            if path.is_file() and beside.get("sha256") == sha256_of(path):
                found[method] = path
    return found


def _serves(job: JobRecord, task: str, fold: int) -> bool:
    return job.fold == fold and job.scope in ("joint", task)


def _text(run: Run, methods: Sequence[Method], chosen: _Chosen, *, others: int) -> str:
    metric = run.metrics[0]
    values = [f"{method.title} {shown(metric, chosen.values.get(method.key, float('nan')))}" for method in methods]
    rest = f"; {others} other methods are not shown" if others else ""
    return f"{about(metric).title} ({unit_of(metric) or 'as given'}): {', '.join(values)}{rest}."


def _drawn(
    config: Config, task: ScoredTask, case: Case, maps: Mapping[str, Path], colours: Sequence[str]
) -> tuple[bytes, tuple[int, ...]]:
    """Return the PNG of one case, a column per method and a row per plane, and the index of each plane."""
    card = config.dataset_cards[task.name]
    images_CXYZ, _ = read_image(case)
    turn = nib.orientations.axcodes2ornt(case.orientation)
    grey_XYZ = nib.apply_orientation(images_CXYZ[0], turn)
    reference_XYZ = nib.apply_orientation(read_label(case, card), turn)
    ignored_XYZ = reference_XYZ == IGNORED
    reference_XYZ = np.where(ignored_XYZ, 0, reference_XYZ)
    predicted = [np.where(ignored_XYZ, 0, nib.apply_orientation(_labels(path), turn)) for path in maps.values()]
    spacing = np.empty(3)
    spacing[turn[:, 0].astype(int)] = case.spacing_mm_xyz
    errors_XYZ = np.sum([labels_XYZ != reference_XYZ for labels_XYZ in predicted], axis=0)
    window = _window([reference_XYZ, *predicted])
    low, high = np.percentile(grey_XYZ, (1, 99))
    planes = [_most_errors(errors_XYZ, reference_XYZ, axis) for axis in range(3)]
    sizes = [_shown_size(window, spacing, axis) for axis in range(3)]
    panel_inches = WIDTH_MM["double"] / 25.4 / max(3, len(predicted))
    heights = [panel_inches * min(1.6, height / width) for width, height in sizes]
    figure, axes = plt.subplots(
        3,
        len(predicted),
        squeeze=False,
        figsize=(panel_inches * len(predicted), sum(heights) + 0.4),
        height_ratios=heights,
        layout="constrained",
    )
    for column, (title, labels_XYZ, colour) in enumerate(zip(maps, predicted, colours, strict=True)):
        for axis in range(3):
            panel = axes[axis, column]
            width, height = sizes[axis]
            extent = (0, width, 0, height)
            panel.imshow(
                _slice(grey_XYZ, window, axis, planes[axis]),
                cmap="gray",
                vmin=low,
                vmax=high,
                extent=extent,
                origin="lower",
                interpolation="nearest",
            )
            for volume_XYZ, line, own in ((reference_XYZ, "solid", REFERENCE_COLOUR), (labels_XYZ, "dashed", colour)):
                _outline(panel, _slice(volume_XYZ, window, axis, planes[axis]), extent, own, line)
            panel.set_axis_off()
        axes[0, column].set_title(wrapped(title, int(72 * panel_inches / LETTER_PT)), fontsize=SMALLEST_PT, color=INK)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    plt.close(figure)
    return _fewer_colours(stream.getvalue(), [REFERENCE_COLOUR, *colours]), tuple(planes)


def _visible(colour: str) -> str:
    """Return the method's colour on the page; white stands for black, which no dark image shows."""
    return "#ffffff" if colour == "#000000" else colour


def _labels(path: Path) -> np.ndarray:
    image = nib.load(path)
    assert isinstance(image, nib.spatialimages.SpatialImage)
    return np.asarray(image.dataobj)


def _window(volumes: Sequence[np.ndarray]) -> tuple[slice, slice, slice]:
    """Return the box of all foreground with a margin; the whole volume where there is none."""
    foreground_XYZ = np.any([volume > 0 for volume in volumes], axis=0)
    if not foreground_XYZ.any():
        x, y, z = (slice(0, size) for size in foreground_XYZ.shape)
        return x, y, z
    spans = []
    for axis, size in enumerate(foreground_XYZ.shape):
        along = np.flatnonzero(foreground_XYZ.any(axis=tuple({0, 1, 2} - {axis})))
        margin = max(4, round(MARGIN * (along[-1] - along[0] + 1)))
        spans.append(slice(max(0, int(along[0]) - margin), min(size, int(along[-1]) + margin + 1)))
    x, y, z = spans
    return x, y, z


def _most_errors(errors_XYZ: np.ndarray, reference_XYZ: np.ndarray, axis: int) -> int:
    """Return the plane with most errors, or with most foreground where there is none."""
    others = tuple({0, 1, 2} - {axis})
    counts = errors_XYZ.sum(axis=others)
    return int(np.argmax(counts if counts.any() else (reference_XYZ > 0).sum(axis=others)))


def _slice(volume_XYZ: np.ndarray, window: tuple[slice, slice, slice], axis: int, plane: int) -> np.ndarray:
    """Return rows upwards and columns to the right of a plane, inside the window."""
    flat = np.take(volume_XYZ, plane, axis=axis)
    first, second = (window[other] for other in range(3) if other != axis)
    return flat[first, second].T


def _shown_size(window: tuple[slice, slice, slice], spacing: np.ndarray, axis: int) -> tuple[float, float]:
    """Return width and height of a plane in mm."""
    width, height = (
        float((window[other].stop - window[other].start) * spacing[other]) for other in range(3) if other != axis
    )
    return width, height


def _outline(panel: plt.Axes, labels_YX: np.ndarray, extent: tuple[float, ...], colour: str, line: str) -> None:
    rows, columns = labels_YX.shape
    _, width, _, height = extent
    x = (np.arange(columns) + 0.5) * width / columns
    y = (np.arange(rows) + 0.5) * height / rows
    for value in np.unique(labels_YX[labels_YX > 0]):
        mask = labels_YX == value
        if min(mask.shape) > 1 and not mask.all():
            panel.contour(x, y, mask.astype(float), levels=[0.5], colors=[colour], linewidths=0.9, linestyles=line)


def _fewer_colours(content: bytes, colours: Sequence[str]) -> bytes:
    """Return the same PNG with a palette: greys, and each line's colour mixed with dark, middle and light grey."""
    greys = [(grey, grey, grey) for grey in np.linspace(0, 255, GREYS).astype(int)]
    lines = [tuple(round(255 * part) for part in to_rgb(colour)) for colour in dict.fromkeys(colours)]
    mixed = [
        tuple(round(alpha * part + (1 - alpha) * grey) for part in line)
        for line in lines
        for alpha in MIXTURES
        for grey in (0, 128, 255)
    ]
    palette = Image.new("P", (1, 1))
    palette.putpalette([int(part) for colour in (*greys, *mixed) for part in colour])
    with Image.open(io.BytesIO(content)) as image:
        small = image.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    small.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
