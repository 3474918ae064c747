"""Render a run's report: tables, figures and one self-contained page; the same input gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from segbench.core.files import write_bytes, write_text
from segbench.core.paths import MADE_FROM, PAGE
from segbench.reporting import (
    ablations,
    answers,
    cases,
    failures,
    figures,
    gains,
    learning_curves,
    pair_figures,
    prompt_figures,
    rank_figures,
    sections,
    sentences,
    task_leaders,
    transfers,
)
from segbench.reporting.csv_text import table_text
from segbench.reporting.latex import table_tex
from segbench.reporting.marks import marked
from segbench.reporting.metrics import about
from segbench.reporting.pictures import DESCRIPTION, absent_pictures, anchor, permitted_pictures, picture_of
from segbench.reporting.pictures import FOLDER as FOLDER_OF_PICTURES
from segbench.reporting.run import Run
from segbench.reporting.statistics import (
    MEAN_COLUMN,
    Statistics,
    beaten_by_controls,
    compared,
    differences,
    few_patients,
    over_all_tasks,
    reference_method,
    statistics_of,
)
from segbench.reporting.style import KINDS, Plot, write_plot
from segbench.reporting.tables import (
    COUNTS_LEGEND,
    Table,
    build_table,
    cell_text,
    points,
    shown,
    table_csv,
    table_markdown,
    unit_of,
)
from segbench.stats.aggregate import structure_cells
from segbench.stats.decision import RULE_TEXT

FOLDER = Path(__file__).parent
MAIN_METRICS = ("dice", "hd95")
SCRIPTS = ("vendor/dataTables-3.1.5.min.js", "page.js")
"""Scripts of the page, in order; it is complete without them, and no other script may run on it."""
RUN_TABLES = ("published.csv", "transfers.csv")
RENDERED = re.compile(r"(upstream|downstream)_\w+\.(csv|md|tex|svg|png|pdf)")
"""Names that only a report gives: a table or figure of this form that is not written anew is removed."""
log = logging.getLogger(__name__)


class _Output:
    """The folder of a report; it remembers what was written, so that what no longer belongs can be removed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.written: set[Path] = set()

    def text(self, name: str, text: str) -> None:
        """Write a file below the folder."""
        write_text(self.folder / name, text)
        self.written.add(self.folder / name)

    def bytes(self, name: str, content: bytes) -> None:
        """Write a file below the folder."""
        write_bytes(self.folder / name, content)
        self.written.add(self.folder / name)

    def plot(self, plot: Plot) -> None:
        """Write a figure in all encodings."""
        write_plot(plot, self.folder / "figures")
        self.written |= {self.folder / "figures" / f"{plot.name}.{kind}" for kind in KINDS}

    def remove_others(self) -> None:
        """Remove tables, figures and pictures of an earlier report that this one does not have; other files stay."""
        for folder in ("tables", "figures", FOLDER_OF_PICTURES):
            for path in sorted((self.folder / folder).glob("*")):
                ours = RENDERED.fullmatch(path.name) or (folder == "tables" and path.name in RUN_TABLES)
                if ours and path not in self.written:
                    path.unlink()
                    log.info("removed %s, which no longer belongs to the report", path)


def render(results_dir: Path, out_dir: Path) -> None:
    """Write index.html, tables/ and figures/ of a finished run.

    Everything follows from scores.csv and run.json; both are copied, so that a report can be rebuilt from itself. The
    page is written after what it links to; tables and figures of an earlier rendering are removed after the page.

    Args:
        results_dir: folder with scores.csv and run.json.
        out_dir: folder of the report; made when absent.

    Raises:
        InputError: the folder does not hold a finished run; nothing is written.
    """
    run = Run(Path(results_dir))
    files = {name: (Path(results_dir) / name).read_bytes() for name in MADE_FROM}
    pictures = permitted_pictures(run, Path(results_dir))
    for notice in absent_pictures(run, pictures):
        log.warning("%s", notice)
    render_run(run, Path(out_dir), files, pictures)


def render_run(
    run: Run, out_dir: Path, files: Mapping[str, bytes], pictures: Mapping[str, bytes] = MappingProxyType({})
) -> None:
    """Write the report of a run that was read or made from a table.

    Args:
        run: rows and record.
        out_dir: folder of the report; made when absent.
        files: what the report is made from, by name; written beside the page.
        pictures: content of the pictures that are shown, by file name; written beside the page too.
    """
    out = _Output(out_dir)
    parts = [experiment_part(run, experiment, out, pictures) for experiment in run.experiments]
    data = "synthetic" if run.synthetic() else ("real" if run.from_jobs else "as given")
    published = sections.published_check(run)
    if len(published):
        out.text("tables/published.csv", _csv(published, data))
    pretrained = transfers.transfer_frame(run)
    if len(pretrained):
        out.text("tables/transfers.csv", _csv(pretrained, data))
    for name, content in files.items():
        write_bytes(out.folder / name, content)
    for name, content in pictures.items():
        out.bytes(f"{FOLDER_OF_PICTURES}/{name}", content)
    out.text(PAGE, page_html(run, parts, published, pretrained, pictures))
    out.remove_others()


def experiment_part(run: Run, experiment: str, out: _Output, pictures: Collection[str] = ()) -> dict[str, Any]:
    """Write the tables and figures of one experiment and return what the page shows of it.

    `pictures` are the files of the pictures that the page shows.
    """
    tables = [build_table(run, experiment, metric) for metric in run.metrics_of(experiment)]
    main = tables[0]
    log.info("%s: statistics of %s", experiment, main.metric)
    statistics = statistics_of(run, experiment, main.metric)
    decisions = _decisions(run, tables, statistics)
    checks = {table.metric: beaten_by_controls(table) for table in tables}
    tables = [marked(table, decisions.get(table.metric), checks[table.metric]) for table in tables]
    main = tables[0]
    latex = []
    for table in tables:
        out.text(f"tables/{table.name}.csv", table_csv(table))
        out.text(f"tables/{table.name}.md", table_markdown(table))
        for name, text in ((table.name, table_tex(table)), (f"{table.name}_controls", table_tex(table, controls=True))):
            if text:
                out.text(f"tables/{name}.tex", text)
                latex.append(name)
    paired = pd.DataFrame() if statistics is None else statistics.paired
    challengers = differences(run, experiment, main.metric, paired)
    failed = failures.failure_frame(run, experiment, main.metric)
    every_case = cases.case_table(run, main)
    ablated = ablations.ablation_frame(run, main, decisions.get(main.metric))
    frames = {"every_case": cases.case_frame(every_case)} | _frames(run, main, statistics, challengers, failed)
    if len(ablated):
        frames["ablation"] = ablated
    for table in tables:
        if table.metric in decisions and table is not main:
            out.text(f"tables/{table.name}_paired.csv", _csv(decisions[table.metric], main.data))
    for name, frame in frames.items():
        out.text(f"tables/{main.name}_{name}.csv", _csv(frame, main.data))
    log.info("%s: figures", experiment)
    plots = _plots(run, experiment, tables, statistics, challengers)
    pairs = pair_figures.reference_pairs(run, main, decisions.get(main.metric))
    for plot in (*plots.values(), *(pair.plot for pair in pairs)):
        out.plot(plot)
    return {
        "experiment": experiment,
        "main": [table for table in tables if table.metric in MAIN_METRICS] or [main],
        "further": [table for table in tables if table.metric not in MAIN_METRICS and table is not main],
        "latex": latex,
        "plots": plots,
        "pairs": pairs,
        "cards": answers.experiment_cards(
            run, main, decisions.get(main.metric), challengers, ablated, every_case, pictures
        ),
        "findings": failures.empty_sentences(run, experiment)
        + (failures.seen_sentences(run) if experiment.startswith("downstream") else []),
        "by_task": task_leaders.task_leaders(run, main, decisions.get(main.metric), checks[main.metric]),
        "leaders": {table.metric: sentences.leading_sentence(table, decisions.get(table.metric)) for table in tables},
        "cases": every_case,
        "conclusions": _conclusions(main, statistics, decisions, challengers, checks),
        "files": {name: f"tables/{main.name}_{name}.csv" for name in frames},
        "difference_texts": _difference_texts(run, main, challengers),
        "failure_text": failures.failure_sentence(run, failed, main.metric),
        "ablation": ablations.ablation_table(run, main, ablated, f"tables/{main.name}_ablation.csv")
        if len(ablated)
        else None,
        "small": _small_tables(run, tables, statistics, checks),
        "failed": failures.failure_table(run, experiment, failed, main.metric, f"tables/{main.name}_failures.csv"),
        "cost": sections.cost_table(run, experiment, f"tables/{main.name}_cost.csv"),
        "learning": learning_curves.learning_table(run, experiment, main.name),
    }


def _frames(
    run: Run, main: Table, statistics: Statistics | None, challengers: pd.DataFrame, failed: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """The full statistics as tables, empty ones left out."""
    rows = run.rows[run.rows["experiment"] == main.experiment]
    structures = structure_cells(
        rows,
        metric=main.metric,
        missing_masks=run.record.missing_masks,
        confidence=1 - run.alpha,
        seed=run.seed,
    )
    costs = figures.method_costs(run, main.experiment)
    costs = costs.assign(model=[key[0] for key in costs["key"]], initialisation=[key[1] for key in costs["key"]])
    frames = {
        "structures": structures,
        "cost": costs.drop(columns="key"),
        "loss": learning_curves.loss_frame(run, main.experiment),
        "validation": learning_curves.validation_frame(run, main.experiment),
        "differences": challengers,
        "failures": failed,
    }
    if statistics is not None:
        names = (
            "paired",
            "ranks",
            "distribution",
            "friedman",
            "ranking_variants",
            "flips",
            "sensitivity",
            "detectable",
            "variance",
        )
        frames |= {name: getattr(statistics, name) for name in names}
    return {name: frame for name, frame in frames.items() if len(frame)}


def _csv(frame: pd.DataFrame, data: str) -> str:
    """CSV text whose first column says in every row whether the data are synthetic."""
    return table_text(pd.DataFrame({"data": data}, index=frame.index).join(frame))


def _plots(
    run: Run, experiment: str, tables: list[Table], statistics: Statistics | None, challengers: pd.DataFrame
) -> dict[str, Plot]:
    main = tables[0]
    reference = reference_method(run, experiment)
    made: dict[str, Plot | None] = {
        f"cases_{table.metric}": figures.case_plot(run, table) for table in tables if table.metric in MAIN_METRICS
    } or {f"cases_{main.metric}": figures.case_plot(run, main)}
    if reference is not None and len(challengers):
        made["differences"] = figures.difference_plot(
            run, experiment, challengers, reference=reference.title, metric=main.metric
        )
    made["cost"] = figures.cost_plot(run, main)
    made["training"] = learning_curves.training_plot(run, experiment)
    made["prompt_similarity"] = prompt_figures.prompt_similarity_plot(run, experiment)
    made["self_supervised"] = learning_curves.self_supervised_plot(run, experiment)
    if statistics is not None:
        made["critical_difference"] = rank_figures.critical_difference_plot(run, statistics)
    if statistics is not None and not few_patients(statistics.paired):
        made["rank_stability"] = rank_figures.rank_stability_plot(run, statistics)
    return {name: plot for name, plot in made.items() if plot is not None}


def _decisions(run: Run, tables: list[Table], statistics: Statistics | None) -> dict[str, pd.DataFrame]:
    """Return metric -> paired table for the metrics of which the page names better methods; empty ones left out."""
    if statistics is None:
        return {}
    found = {statistics.metric: statistics.paired}
    for table in tables:
        if table.metric in MAIN_METRICS and table.metric not in found:
            found[table.metric] = compared(run, table.experiment, table.metric)
    return {metric: paired for metric, paired in found.items() if len(paired)}


def _conclusions(
    main: Table,
    statistics: Statistics | None,
    decisions: dict[str, pd.DataFrame],
    challengers: pd.DataFrame,
    checks: dict[str, pd.DataFrame],
) -> dict[str, str]:
    """Return one line per collapsed section, so that a reader who opens none of them knows what they say."""
    found = {
        "power": "Not known: every task has fewer than two patients.",
        "stability": sentences.stability_sentence(main, statistics) or "",
        "flips": sentences.ranking_variants_sentence(statistics) or "",
        "baselines": " ".join(
            sentences.baseline_sentence(check, metric) or ""
            for metric, check in checks.items()
            if metric in MAIN_METRICS or metric == main.metric
        ),
    }
    if main.metric in decisions:
        whole = over_all_tasks(decisions[main.metric])
        named = int(whole["better"].isin(("a", "b")).sum())
        found["pairs"] = (
            f"{named} of {len(whole)} pairs are distinguishable over tasks."
            if len(whole)
            else "Pairs are tested per task, not over tasks."
        )
    if len(challengers):
        words = challengers.loc[challengers["column"] == MEAN_COLUMN, "transfer"]
        texts = sentences.DECISION_WORDS | {"not shown": "not distinguishable"}
        counts = [f"{text}: {int((words == word).sum())}" for word, text in texts.items() if (words == word).any()]
        found["differences"] = f"Over tasks {', '.join(counts)}." if counts else "Tested per task, not over tasks."
    if statistics is not None and statistics.detectable["minimum_detectable"].notna().any():
        smallest = statistics.detectable["minimum_detectable"].dropna().sort_values()
        limits = dict.fromkeys(shown(main.metric, value) for value in (smallest.iloc[0], smallest.iloc[-1]))
        found["power"] = f"{' to '.join(limits)} {points(main.metric)}, by task."
    return found


def _difference_texts(run: Run, main: Table, challengers: pd.DataFrame) -> list[str]:
    reference = reference_method(run, main.experiment)
    if reference is None or challengers.empty:
        return []
    return sentences.difference_sentences(challengers, reference.title, main.metric)


def _small_tables(
    run: Run, tables: list[Table], statistics: Statistics | None, checks: dict[str, pd.DataFrame]
) -> dict[str, sections.SmallTable]:
    main = tables[0]
    checked = [(table, checks[table.metric]) for table in tables if table.metric in MAIN_METRICS or table is main]
    checked = [(table, found) for table, found in checked if len(found)]
    small = {"baselines": sections.baseline_table(run, checked)} if checked else {}
    if statistics is None:
        return small
    gained = gains.gains_table(run, main, statistics)
    if gained is not None:
        small["gains"] = gained
    path = f"tables/{main.name}_{{}}.csv"
    if len(statistics.paired):
        small["pairs"] = sections.pair_table(run, statistics, path.format("paired"))
    small["ranking"] = sections.ranking_table(run, statistics, path.format("ranks"))
    if len(statistics.flips):
        small["flips"] = sections.flips_table(run, statistics, path.format("ranking_variants"))
    small["sensitivity"] = sections.sensitivity_table(run, statistics, path.format("sensitivity"))
    small["power"] = sections.power_table(run, statistics, path.format("detectable"))
    return small


def page_html(
    run: Run, parts: list[dict], published: pd.DataFrame, pretrained: pd.DataFrame, pictures: Mapping[str, bytes]
) -> str:
    """Return the page; figures and pictures are embedded, links are relative."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["data_uri"] = _data_uri
    environment.filters["anchor"] = anchor
    environment.filters["with_code"] = _with_code
    environment.filters["png_uri"] = lambda name: f"data:image/png;base64,{base64.b64encode(pictures[name]).decode()}"
    environment.globals.update(
        cell_text=cell_text,
        counts_legend=COUNTS_LEGEND,
        unit_of=unit_of,
        about=about,
        kinds=KINDS,
        picture_of=picture_of,
        rule_text=f"{RULE_TEXT[run.record.statistics.decision_rule]}, Holm per family, level {100 * run.alpha:g} %",
        seconds_text=sentences.seconds_text,
    )
    scripts = [Markup((FOLDER / name).read_text(encoding="utf-8")) for name in SCRIPTS]  # noqa: S704 (our own files)
    return environment.get_template("page.html.j2").render(
        run=run,
        record=run.record,
        parts=parts,
        css=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),  # noqa: S704 (our own file)
        scripts=scripts,
        script_hashes=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
        title=f"{'Synthetic data: ' if run.synthetic() else ''}segbench report of {run.name}",
        trust=answers.trust_card(run),
        failures=sentences.failure_sentence(run) if run.from_jobs else "",
        notices=[*run.record.notices, *absent_pictures(run, pictures)],
        pictures=pictures,
        picture_description=DESCRIPTION,
        failed_jobs=[job for job in run.record.jobs if job.status == "failed"],
        phases=sections.phase_rows(run),
        overhead=sections.overhead_fraction(run),
        audit=sections.audit_table(run) if run.from_jobs else None,
        published=sections.published_table(run, published, "tables/published.csv") if len(published) else None,
        pretrained=transfers.transfer_table(run, pretrained, "tables/transfers.csv") if len(pretrained) else None,
    )


def _with_code(text: str) -> Markup:
    """Return escaped text whose parts in backticks are marked as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 (escaped)


def _data_uri(plot: Plot) -> str:
    kind, content = plot.embedded
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
