"""Render a run's report: tables, figures and one self-contained page; the same input gives the same bytes."""

from __future__ import annotations

import base64
import logging
from pathlib import Path

import jinja2
import pandas as pd

from segbench.core.files import write_bytes, write_text
from segbench.metrics.registry import METRICS
from segbench.reporting import figures, rank_figures, sections, sentences, transfers
from segbench.reporting.run import Run
from segbench.reporting.statistics import (
    Statistics,
    beaten_by_controls,
    differences,
    reference_method,
    statistics_of,
)
from segbench.reporting.style import Plot, write_plot
from segbench.reporting.tables import Table, build_table, cell_lines, table_csv, table_markdown, table_tex, unit_of
from segbench.stats.aggregate import structure_cells

FOLDER = Path(__file__).parent
MAIN_METRICS = ("dice", "hd95")
log = logging.getLogger(__name__)


def render(results_dir: Path, out_dir: Path) -> None:
    """Write index.html, tables/ and figures/ of a finished run below `out_dir`.

    `results_dir` holds scores.csv and run.json, from which everything follows; both are copied, so that a report can be
    rebuilt from itself. The page is written last, so that it never points to missing files.
    Raises `InputError` when the folder does not hold a finished run.
    """
    run, out_dir = Run(Path(results_dir)), Path(out_dir)
    parts = [experiment_part(run, experiment, out_dir) for experiment in run.experiments]
    published = sections.published_check(run)
    if len(published):
        write_text(out_dir / "tables" / "published.csv", _csv(published, "synthetic" if run.synthetic() else "real"))
    started = transfers.transfer_frame(run)
    if len(started):
        write_text(out_dir / "tables" / "transfers.csv", _csv(started, "synthetic" if run.synthetic() else "real"))
    for name in ("scores.csv", "run.json"):
        write_bytes(out_dir / name, (Path(results_dir) / name).read_bytes())
    write_text(out_dir / "index.html", page_html(run, parts, published, started))


def experiment_part(run: Run, experiment: str, out_dir: Path) -> dict:
    """Write the tables and figures of one experiment and return what the page shows of it."""
    tables = [build_table(run, experiment, metric) for metric in run.metrics]
    for table in tables:
        for kind, text in (("csv", table_csv(table)), ("md", table_markdown(table)), ("tex", table_tex(table))):
            write_text(out_dir / "tables" / f"{table.name}.{kind}", text)
    main = tables[0]
    log.info("%s: statistics of %s", experiment, main.metric)
    statistics = statistics_of(run, experiment, main.metric)
    challengers = differences(run, experiment, main.metric)
    checks = beaten_by_controls(main)
    frames = _frames(run, main, statistics, challengers)
    for name, frame in frames.items():
        write_text(out_dir / "tables" / f"{main.name}_{name}.csv", _csv(frame, main.data))
    log.info("%s: figures", experiment)
    plots = _plots(run, experiment, tables, statistics, challengers)
    for plot in plots.values():
        write_plot(plot, out_dir / "figures")
    return {
        "experiment": experiment,
        "main": [table for table in tables if table.metric in MAIN_METRICS] or [main],
        "further": [table for table in tables if table.metric not in MAIN_METRICS and table is not main],
        "plots": plots,
        "summary": _summary(run, experiment, tables, statistics, challengers, checks),
        "small": _small_tables(run, main, statistics, checks),
        "structures": f"tables/{main.name}_structures.csv",
        "cost": sections.cost_table(run, experiment, f"tables/{main.name}_cost.csv"),
    }


def _frames(run: Run, main: Table, statistics: Statistics | None, challengers: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The full statistics as tables, empty ones left out."""
    rows = run.rows[run.rows["experiment"] == main.experiment]
    structures = structure_cells(rows, metric=main.metric, policies=run.record["policies"])
    costs = figures.method_costs(run, main.experiment)
    costs = costs.assign(model=[key[0] for key in costs["key"]], initialisation=[key[1] for key in costs["key"]])
    frames = {
        "structures": structures.drop(columns=["seed_means", "seed_noise"], errors="ignore"),
        "cost": costs.drop(columns="key"),
        "differences": challengers,
    }
    if statistics is not None:
        names = (
            "paired",
            "ranks",
            "distribution",
            "friedman",
            "multiverse",
            "flips",
            "sensitivity",
            "detectable",
            "variance",
        )
        frames |= {name: getattr(statistics, name) for name in names}
    return {name: frame for name, frame in frames.items() if len(frame)}


def _csv(frame: pd.DataFrame, data: str) -> str:
    """CSV text whose first column says in every row whether the data are synthetic."""
    marked = pd.DataFrame({"data": data}, index=frame.index).join(frame)
    return marked.to_csv(index=False, lineterminator="\n", float_format="%.9g")


def _plots(
    run: Run, experiment: str, tables: list[Table], statistics: Statistics | None, challengers: pd.DataFrame
) -> dict[str, Plot]:
    main = tables[0]
    reference = reference_method(run, experiment)
    made = {
        f"cases_{table.metric}": figures.case_plot(run, table) for table in tables if table.metric in MAIN_METRICS
    } or {f"cases_{main.metric}": figures.case_plot(run, main)}
    if len(challengers):
        made["differences"] = figures.difference_plot(
            run, experiment, challengers, reference=reference.title, metric=main.metric
        )
    made["cost"] = figures.cost_plot(run, main)
    made["training"] = figures.training_plot(run, experiment)
    made["self_supervised"] = figures.self_supervised_plot(run, experiment)
    if statistics is not None:
        made["critical_difference"] = rank_figures.critical_difference_plot(run, statistics)
        made["rank_stability"] = rank_figures.rank_stability_plot(run, statistics)
    return {name: plot for name, plot in made.items() if plot is not None}


def _summary(
    run: Run,
    experiment: str,
    tables: list[Table],
    statistics: Statistics | None,
    challengers: pd.DataFrame,
    checks: pd.DataFrame,
) -> list[tuple[str, str]]:
    main, reference = tables[0], reference_method(run, experiment)
    lines = [("Best", sentences.winner_sentence(main, statistics))]
    lines += [("HD95", sentences.winner_sentence(table, None)) for table in tables[1:] if table.metric == "hd95"]
    word = "Universal" if experiment == "upstream" else "Transfer"
    if len(challengers):
        lines += [(word, text) for text in sentences.difference_sentences(challengers, reference.title, main.metric)]
    lines += [("Controls", sentences.control_sentence(checks)), ("Ranking", sentences.multiverse_sentence(statistics))]
    return [(label, text) for label, text in lines if text]


def _small_tables(
    run: Run, main: Table, statistics: Statistics | None, checks: pd.DataFrame
) -> dict[str, sections.SmallTable]:
    small = {"controls": sections.control_table(run, main, checks)} if len(checks) else {}
    if statistics is None:
        return small
    path = f"tables/{main.name}_{{}}.csv"
    if len(statistics.paired):
        small["pairs"] = sections.pair_table(run, statistics, path.format("paired"))
    small["ranking"] = sections.ranking_table(run, statistics, path.format("ranks"))
    if len(statistics.flips):
        small["flips"] = sections.flips_table(run, statistics, path.format("multiverse"))
    small["sensitivity"] = sections.sensitivity_table(run, statistics, path.format("sensitivity"))
    small["power"] = sections.power_table(run, statistics, path.format("detectable"))
    return small


def page_html(run: Run, parts: list[dict], published: pd.DataFrame, started: pd.DataFrame) -> str:
    """Return the page; figures are embedded, links are relative."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["data_uri"] = _data_uri
    environment.globals.update(
        cell_lines=cell_lines, unit_of=unit_of, metrics=METRICS, seconds_text=sentences.seconds_text
    )
    record = run.record
    return environment.get_template("page.html.j2").render(
        run=run,
        record=record,
        parts=parts,
        css=(FOLDER / "page.css").read_text(encoding="utf-8"),
        title=f"{'Synthetic data: ' if run.synthetic() else ''}segbench report of {run.name}",
        failures=sentences.failure_sentence(run),
        failed_jobs=[job for job in record["jobs"] if job["status"] == "failed"],
        phases=sections.phase_rows(run),
        overhead=sections.overhead_share(run),
        audit=sections.audit_table(run),
        published=sections.published_table(run, published, "tables/published.csv") if len(published) else None,
        started=transfers.transfer_table(run, started, "tables/transfers.csv") if len(started) else None,
    )


def _data_uri(plot: Plot) -> str:
    kind, content = plot.embedded
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
