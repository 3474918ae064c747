"""The whole report of a small made-up run: complete, self-contained, open about gaps, the same bytes each time."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segbench.cli import main
from segbench.experiment.graph import REPORTING_FILES, REPORTING_FOLDERS
from segbench.reporting import answers, cases, failures, figures, sections, sentences, statistics
from segbench.reporting import page as page_module
from segbench.reporting.page import render
from segbench.reporting.run import Run
from segbench.reporting.tables import build_table, missed_text
from segbench.stats.ranking import ALL_TASKS
from tests.paths import ROOT
from tests.unit.reporting.synthetic_run import write_run

SMALL = {"seeds": (0,), "cases": 4, "upstream": 3, "methods": 12}


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("page") / "toy", **SMALL)


@pytest.fixture(scope="module")
def report(results) -> Path:
    out = results.parent / "report"
    render(results, out)
    return out


@pytest.fixture(scope="module")
def page(report) -> str:
    return html.unescape((report / "index.html").read_text(encoding="utf-8"))


def test_every_expected_file_is_there(report):
    files = set(_digests(report))
    for experiment in ("upstream", "downstream"):
        for metric in ("dice", "hd95"):
            assert {f"tables/{experiment}_{metric}.{kind}" for kind in ("csv", "md", "tex")} <= files
        for name in ("dice_cases", "dice_differences", "training", "dice_cost", "dice_rank_stability"):
            assert {f"figures/{experiment}_{name}.{kind}" for kind in ("png", "svg", "pdf")} <= files
        assert {f"tables/{experiment}_dice_controls.tex", f"tables/{experiment}_dice_failures.csv"} <= files
    assert {"scores.csv", "run.json"} <= files


def test_a_self_supervised_objective_has_a_cost_a_curve_and_a_citation_but_no_row(results, report, page):
    title = "Self-supervised: Restoration"
    assert (report / "figures" / "upstream_self_supervised.svg").exists()
    assert not (report / "figures" / "downstream_self_supervised.svg").exists()
    assert f"{title},77,150,400000" in (report / "tables" / "upstream_dice_cost.csv").read_text()
    assert "The paper of restoration" in page
    assert "Self-supervised training" in page
    table = build_table(Run(results), "upstream", "dice")
    assert title not in [row.method.title for row in table.rows]


def test_the_page_needs_nothing_from_elsewhere(report):
    assert (report / "index.html").stat().st_size < 5_000_000
    page = re.sub(r"<script>.*?</script>", "", (report / "index.html").read_text(encoding="utf-8"), flags=re.S)
    assert not re.search(r"<(script|link|iframe|object|embed)\b", page)
    assert "@import" not in page
    sources = re.findall(r'src="([^"]{0,40})', page)
    assert sources
    assert all(source.startswith("data:image/") for source in sources)


def test_pretrained_weights_are_shown_with_what_matched(report, page):
    table = page[page.index("<h3>Pre-trained weights</h3>") :]
    row = re.search(r"<tr><th[^>]*>Pre-trained: UniSeg</th>(.*?)</tr>", table).group(1)
    source = "upstream.uniseg.random.joint.f0.s0"
    assert re.findall(r">([^<]+)<", row) == [source, "segbench", "98.0 %", "40", "1", "2", "1", "0.1 1.2 -3.4 5.6"]
    lines = (report / "tables" / "transfers.csv").read_text().splitlines()
    assert lines[0].startswith(
        "data,experiment,model,initialisation,scope,fold,seed,source,format,sha256,fraction,matched"
    )
    assert len(lines) == 1 + 3 * 2  # three initialisations, two downstream tasks, one seed


def test_links_to_files_resolve(report, page):
    links = [link for link in re.findall(r'href="([^"]+)"', page) if not link.startswith("http")]
    files = [link for link in links if not link.startswith("#")]
    anchors = {link[1:] for link in links if link.startswith("#")}
    assert len(files) > 20
    assert not [link for link in files if not (report / link).is_file()]
    assert anchors <= set(re.findall(r'id="([^"]+)"', page))


def test_synthetic_is_said_in_title_captions_figures_and_tables(report, page):
    assert "<title>Synthetic data:" in page
    captions = re.findall(r'<(?:p class="caption"|figcaption|caption)>(.*?)</', page, flags=re.S)
    assert len(captions) > 15
    assert not [text for text in captions if "Synthetic data" not in text and not text.startswith("Fidelity")]
    for path in (report / "tables").glob("*.csv"):
        assert all(line.startswith("synthetic,") for line in path.read_text().splitlines()[1:]), path.name


def test_real_data_are_not_called_synthetic(results, tmp_path):
    record = json.loads((results / "run.json").read_text())
    record["synthetic"], record["notices"] = False, []
    for task in record["tasks"]:
        task["synthetic"] = False
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "scores.csv").write_bytes((results / "scores.csv").read_bytes())
    run = Run(tmp_path)
    assert run.data_word() == ""
    table = build_table(run, "upstream", "dice")
    assert (table.data, "ynthetic" in table.caption + table.legend) == ("real", False)


def test_the_summary_names_the_highest_rank_of_the_table(results, page):
    best = build_table(Run(results), "upstream", "dice").ranking()[0]
    assert f"{best.method.title} has the highest rank by mean Dice over 3 upstream tasks" in page


def pairs(table, better, *, task=ALL_TASKS):
    """A paired table of one row per pair by mean; `better` maps (rank of a, rank of b) to the outcome for a and b."""
    rows = table.ranking()
    labels = [statistics.label_of(row.method) for row in rows]
    means = [row.mean.mean for row in rows]
    return pd.DataFrame(
        {
            "method_a": labels[i],
            "method_b": labels[j],
            "task": task,
            "difference": means[i] - means[j],
            "low": means[i] - means[j] - 0.01,
            "high": means[i] - means[j] + 0.01,
            "p_holm": 0.2,
            "better": better.get((i, j), ""),
        }
        for i, j in itertools.combinations(range(len(rows)), 2)
    )


def test_every_sentence_about_the_leader_follows_the_decisions_over_tasks(results):
    table = build_table(Run(results), "upstream", "dice")
    names = [row.method.title for row in table.ranking()]
    paired = pairs(table, {(0, 1): "", (0, 2): "conflicting", (0, 3): "a"})
    text = sentences.leading_sentence(table, paired)
    assert f"it is better than {names[3]}" in text
    assert sentences.leader_text(table, paired) in text
    assert f"not distinguishable from {names[1]}" in text
    assert f"in conflict (mean and ranks disagree) with {names[2]}" in text
    assert "Holm p 0.200" in text
    undecided = sentences.leading_sentence(table, pairs(table, {}))
    assert "better than" not in undecided
    several = pd.concat([pairs(table, {(0, 1): "a"}, task="one"), pairs(table, {(0, 1): "a"}, task="two")])
    assert "no method is named better" in sentences.leading_sentence(table, several)


def test_no_method_is_best_that_is_not_above_every_weak_control(results):
    table = build_table(Run(results), "upstream", "dice")
    best = table.ranking()[0]
    weak = next(row for row in table.rows if row.method.model in statistics.TRIVIAL_BASELINES)
    level = replace(weak, mean=replace(weak.mean, mean=best.mean.mean))
    equal = replace(table, rows=[level if row is weak else row for row in table.rows])
    decided = pairs(table, {(0, 1): "a", (0, 2): "a", (0, 3): "a"})
    assert sentences.not_above_baselines(table) == []
    assert sentences.not_above_baselines(equal) == [weak.method.title]
    assert sentences.leading_sentence(equal, decided).startswith("No method is named best")
    assert answers._leaders(equal, decided) == f"No method is above {weak.method.title}."


def test_the_measured_coverage_stands_under_the_table_of_pairs(page):
    caption = re.search(r"Practically equivalent: the Bayesian[^<]*", html.unescape(page)).group()
    assert re.search(r"Measured coverage in simulations: \d+.\d+ % with \d+ patients", caption)


def test_a_leader_that_the_rule_finds_worse_says_so(results):
    table = build_table(Run(results), "upstream", "dice")
    names = [row.method.title for row in table.ranking()]
    assert f"worse than {names[1]}" in sentences.leader_text(table, pairs(table, {(0, 1): "b"}))
    assert sentences.leader_text(table, pairs(table, {}).iloc[1:]) == ""


def test_differences_are_counted_by_decision_and_not_by_interval():
    rows = [
        ("positive", "", 0.1),
        ("not shown", "t1", 0.9),
        ("negative", "t2", -0.1),
        ("conflicting", "t3", 0.2),
    ]
    table = pd.DataFrame(
        {
            "title": "A",
            "column": name or statistics.MEAN_COLUMN,
            "difference": value,
            "low": value - 0.01,
            "high": value + 0.01,
            "transfer": word,
        }
        for word, name, value in rows
    )
    (text,) = sentences.difference_sentences(table, "R", "dice")
    assert "A against R: worse on 1, mean and ranks disagree on 1, not distinguishable on 1 of 3 tasks" in text
    assert text.endswith("+10.0 points (+9.0 to +11.0), better.")


def test_few_patients_give_no_rank_probability(tmp_path):
    run = Run(write_run(tmp_path / "few", seeds=(0,), cases=3, upstream=2, methods=4, curves=False))
    found = statistics.statistics_of(run, "upstream", "dice")
    assert statistics.few_patients(found.paired)
    text = sentences.stability_sentence(build_table(run, "upstream", "dice"), found)
    assert text == "Rank probabilities are not given: a task has three patients or fewer."
    table = sections.ranking_table(run, found, "")
    assert {row[5] for row in table.rows} == {"\u2013"}


def test_footer_holds_the_provenance(results, page):
    footer = page[page.index("<footer>") :]
    record = json.loads((results / "run.json").read_text())
    for words in (record["provenance"]["commit"], record["config_sha256"], "torch 2.13.0", "Linux x86_64", "11.0 min"):
        assert words in footer
    assert f"scores.csv SHA-256 {hashlib.sha256((results / 'scores.csv').read_bytes()).hexdigest()}" in footer


def test_cost_section_shows_the_fraction_outside_training_inference_and_scoring(page):
    # phases of the fixture: 520.4 + 61 + 12.5 of 689.1 seconds lie inside
    assert "14 % of the process time lies outside training, inference and scoring" in page


def test_a_report_is_rebuilt_from_itself_and_what_differs_is_named(tmp_path, capsys):
    render(write_run(tmp_path / "tiny", seeds=(0,), cases=3, upstream=2, methods=4), tmp_path / "report")
    report = tmp_path / "report"
    command = [sys.executable, "-m", "segbench", "verify", str(report)]
    root = ROOT
    other = {**os.environ, "PYTHONHASHSEED": "4242", "PYTHONPATH": str(root)}
    subprocess.run(command, check=True, cwd=root, env=other, capture_output=True)

    (report / "tables" / "upstream_dice.csv").write_text("synthetic,better\n")
    (report / "figures" / "upstream_training.svg").unlink()
    (report / "extra.txt").write_text("x")
    assert main(["verify", str(report)]) == 1
    message = capsys.readouterr().err
    for words in ("tables/upstream_dice.csv differs", "upstream_training.svg is missing", "extra.txt is not rebuilt"):
        assert words in message
    assert "index.html" not in message
    assert main(["verify", str(tmp_path)]) == 2


def test_the_command_prints_the_page_and_refuses_an_empty_folder(tmp_path, capsys):
    assert main(["report", "--results", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "run.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_differences_are_positive_where_the_challenger_is_better(results):
    run = Run(results)
    table = statistics.differences(run, "upstream", "hd95", statistics.compared(run, "upstream", "hd95"))
    hd95 = build_table(run, "upstream", "hd95")
    means = {row.method.title: [row.mean, *row.cells] for row in hd95.rows}
    columns = [statistics.MEAN_COLUMN, *(task.title for task in hd95.tasks)]
    for row in table.itertuples():
        i = columns.index(row.column)
        by_hand = means["Single-task U-Net"][i].mean - means[row.title][i].mean
        assert row.difference == pytest.approx(by_hand, abs=1e-9)


def test_trivial_baselines_that_are_not_beaten_are_named(results):
    table = build_table(Run(results), "upstream", "dice")
    checks = statistics.beaten_by_controls(table)
    assert checks["column"].iloc[0] == statistics.MEAN_COLUMN
    level = max(row.mean.mean for row in table.rows if row.method.model in statistics.TRIVIAL_BASELINES)
    losers = [row.method.title for row in table.rows if row.method.trained and row.mean.mean <= level]
    assert checks["not_better"].iloc[0] == losers


def test_a_difference_without_an_interval_says_so():
    assert "fewer than two patients" in sentences.difference_text("dice", {"difference": 0.1, "low": np.nan, "high": 1})


def test_a_run_with_one_trained_method_still_renders(tmp_path):
    results = write_run(tmp_path / "one", seeds=(0,), cases=3, upstream=2, methods=1, curves=False)
    render(results, tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "Fewer than two trained methods: there is nothing to compare." in page


def test_one_case_and_one_method_are_named_once(tmp_path, monkeypatch):
    costs = answers.method_costs
    monkeypatch.setattr(answers, "method_costs", lambda *given: costs(*given).head(1))
    results = write_run(tmp_path / "one", seeds=(0,), cases=1, upstream=2, methods=1, curves=False)
    run = Run(results)
    assert cases.case_table(run, build_table(run, "downstream", "dice")).conclusion.startswith("2 cases. Hardest: ")
    render(results, tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "<small>1 case</small>" in page
    assert "1 cases" not in page
    (cost,) = re.findall(r"Training time</a>.*?<p>(.*?)</p>", page, re.DOTALL)
    assert re.fullmatch(r"UniSeg [\d.]+ (s|min)\.", cost)
    assert "Not known: every task has fewer than two patients." in page


@pytest.fixture
def without_statistics(monkeypatch):
    """Renders without the statistics, which take most of the time, for tests of everything else."""
    monkeypatch.setattr(page_module, "statistics_of", lambda *_: None)


def test_rendering_again_removes_what_no_longer_belongs_and_nothing_else(tmp_path, without_statistics):
    results = write_run(tmp_path / "results", seeds=(0,), cases=3, upstream=2, methods=3)
    out = tmp_path / "report"
    render(results, out)
    assert (out / "tables" / "transfers.csv").exists()
    stale = ["tables/upstream_nsd.csv", "tables/upstream_nsd_controls.tex", "figures/upstream_nsd_cases.png"]
    own = ["tables/my_notes.csv", "figures/sketch.svg", "tables/upstream_nsd.txt", "notes.md"]
    for name in (*stale, *own):
        (out / name).write_text("x")
    before = set(_digests(out))

    record = json.loads((results / "run.json").read_text())
    for part in ("methods", "tasks", "jobs", "skipped"):
        record[part] = [item for item in record[part] if item["experiment"] == "upstream"]
    rows = (results / "scores.csv").read_text().splitlines(keepends=True)
    (results / "scores.csv").write_text("".join(line for line in rows if not line.startswith("downstream")))
    record["scores_sha256"] = hashlib.sha256((results / "scores.csv").read_bytes()).hexdigest()
    (results / "run.json").write_text(json.dumps(record))
    render(results, out)
    gone = {name for name in before if "downstream" in name} | {"tables/transfers.csv"} | set(stale)
    assert set(_digests(out)) == before - gone


class _Tables(HTMLParser):
    """Collects, per table, whether it has a caption, and every header cell without a scope."""

    def __init__(self):
        super().__init__()
        self.tables, self.captions, self.unscoped = 0, 0, []

    def handle_starttag(self, tag, attrs):
        self.tables += tag == "table"
        self.captions += tag == "caption"
        if tag == "th" and "scope" not in dict(attrs):
            self.unscoped.append(self.getpos())


def test_every_table_has_a_caption_and_every_header_a_scope(report):
    parser = _Tables()
    parser.feed((report / "index.html").read_text(encoding="utf-8"))
    assert parser.tables > 20
    assert parser.captions == parser.tables
    assert not parser.unscoped


def test_the_first_link_skips_to_the_results(page):
    body = page[page.index("<body>") :]
    assert re.search(r'<a class="skip" href="#([^"]+)"', body).group(1) == "summary"
    assert body.index('class="skip"') < body.index("<nav")


def test_names_titles_and_cards_cannot_write_html(tmp_path, without_statistics):
    results = write_run(tmp_path / "results", seeds=(0,), cases=3, upstream=2, methods=3)
    record = json.loads((results / "run.json").read_text())
    evil = "<script>alert('x')</script>\"onload=\"y & z"
    record["description"] = record["methods"][0]["title"] = record["methods"][0]["citation"] = evil
    record["tasks"][0]["title"] = record["tasks"][0]["structures"][0]["name"] = record["notices"][0] = evil
    record["jobs"][0]["reason"], record["jobs"][0]["status"] = evil, "failed"
    (results / "run.json").write_text(json.dumps(record))
    render(results, tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert text.count("&lt;script&gt;alert(") > 10
    text = re.sub(r"<script>.*?</script>", "", text, flags=re.S)  # those of the page itself
    assert "<script" not in text
    assert '"onload="' not in text
    for path in (tmp_path / "report" / "figures").glob("*.svg"):
        assert "<script" not in path.read_text()


def test_names_in_backticks_are_code_and_all_else_is_escaped():
    assert page_module._with_code("clip (`clip_hu`) <b>`<i>`") == (
        "clip (<code>clip_hu</code>) &lt;b&gt;<code>&lt;i&gt;</code>"
    )


def test_the_hardest_case_has_metric_and_unit(results, page):
    run = Run(results)
    hardest = cases.case_table(run, build_table(run, "upstream", "dice"))
    row = hardest.rows[0]
    assert hardest.worst == f"{row.case} ({row.task.title}), at best {row.texts()[0]} %."
    assert hardest.worst in page


def test_one_task_is_not_called_tasks(page):
    assert not re.search(r"(?<![\d.])1 (of )?(upstream |downstream )?tasks", page)
    assert sentences.tasks_text(1) == "1 task"
    assert sentences.tasks_text(11) == "11 tasks"


def test_failures_are_counted_on_the_page(results, page):
    run = Run(results)
    rows = run.rows[(run.rows["experiment"] == "upstream") & (run.rows["metric"] == "dice")]
    trained = {method.model for method in run.methods_of("upstream") if method.trained}
    rows = rows[rows["model"].isin(trained)]
    answered = rows["status"].isin(("both_empty", "skipped"))
    zero = ((rows["value"] == 0) | (rows["value"].isna() & ~answered)).sum()
    without = rows["status"].isin(("prediction_empty", "prediction_missing", "failed")).sum()
    assert zero > 0
    assert without > 0
    counts = f"{zero} of {len(rows)} Dice rows of trained methods are 0 or without a value"
    assert f"{counts}: {without} structures without a mask" in page
    frame = failures.failure_frame(run, "upstream", "dice").set_index("model")
    own = rows[rows["model"] == "unetr"]
    assert frame.loc["unetr", "expected"] == len(own)
    assert frame.loc["unetr", "failed"] == own["status"].isin(("prediction_missing", "failed")).sum() > 0


def test_every_case_is_listed_and_the_hardest_first(results):
    run = Run(results)
    table = build_table(run, "upstream", "dice")
    values = figures.case_values(run, table)
    trained = {method.model for method in run.methods_of("upstream") if method.trained}
    values = values[values["model"].isin(trained)]
    best = values.groupby("case")["scored"].max()
    found = cases.case_table(run, table)
    assert [row.case for row in found.rows] != sorted(row.case for row in found.rows)
    assert {row.case for row in found.rows} == set(values["case"])
    assert found.rows[0].case == best.idxmin()
    assert found.rows[0].texts()[0] == f"{best.min():.1f}"
    for row in found.rows:
        own = values[values["case"] == row.case]["scored"]
        assert row.values[:3] == pytest.approx([own.max(), own.median(), own.min()])
        assert len(row.values) == 3 + len(trained)
    rows = run.rows[(run.rows["metric"] == "dice") & run.rows["model"].isin(trained)]
    without = rows["status"].isin(("prediction_empty", "prediction_missing", "failed"))
    missed = rows[without | ((rows["value"] == 0) & (rows["status"] != "reference_empty"))]
    missed = missed[missed["experiment"] == "upstream"]
    assert sum(row.missed for row in found.rows) == len(missed) > 0
    distances = cases.case_table(run, build_table(run, "upstream", "hd95"))
    firsts = [row.values[0] for row in distances.rows]
    assert firsts == sorted(firsts, reverse=True)


def test_the_hardest_case_of_both_experiments_is_on_a_card_and_in_a_row_with_a_link(results, page):
    run = Run(results)
    for experiment in run.experiments:
        row = cases.case_table(run, build_table(run, experiment, "dice")).rows[0]
        assert f'<tr id="case/{experiment}/{row.task.name}/{row.case}">' in page
        assert f"{row.case} ({row.task.title}), at best" in page[: page.index("<table")]


def test_the_answers_are_short_and_come_before_the_first_table(report):
    text = (report / "index.html").read_text(encoding="utf-8")
    body = text[text.index("<body>") : text.index("<table")]
    words = re.sub(r"<[^>]+>", " ", body).split()
    assert len(words) < 150
    cards = re.findall(r'<div class="card">(.*?)</div>', body, flags=re.S)
    assert len(cards) >= 6
    assert len(re.sub(r"<[^>]+>", " ", " ".join(cards)).split()) <= 120
    for word in ("seed", "test cases", "controls", "segbench verify", "scores.csv"):
        assert word in cards[-1]


def test_only_the_scripts_of_the_page_may_run(report):
    text = (report / "index.html").read_text(encoding="utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.S)
    assert len(scripts) == len(page_module.SCRIPTS)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text).group(1)
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in html.unescape(policy)
    assert "default-src 'none'" in html.unescape(policy)
    assert "unsafe-inline'; script" in html.unescape(policy)  # styles only


def test_the_vendored_script_is_the_published_one():
    path = page_module.FOLDER / page_module.SCRIPTS[0]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest in (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")
    assert "MIT" in path.with_name("dataTables-LICENSE.txt").read_text(encoding="utf-8")


def test_a_folded_section_has_a_heading_and_the_page_says_everything_without_scripts(report):
    text = (report / "index.html").read_text(encoding="utf-8")
    folds = re.findall(r'<details class="fold"[^>]*><summary>(.*?)</summary>', text, flags=re.S)
    assert len(folds) > 15
    assert all("<h3>" in fold for fold in folds)
    assert len(set(re.findall(r'\sid="([^"]+)"', text))) == len(re.findall(r'\sid="([^"]+)"', text))


def changed(results, tmp_path, change):
    """The run with rows changed by hand and the record changed to match."""
    rows = pd.read_csv(results / "scores.csv", dtype=str, keep_default_na=False)
    change(rows).to_csv(tmp_path / "scores.csv", index=False, lineterminator="\n")
    record = json.loads((results / "run.json").read_text())
    record["scores_sha256"] = hashlib.sha256((tmp_path / "scores.csv").read_bytes()).hexdigest()
    (tmp_path / "run.json").write_text(json.dumps(record))
    return Run(tmp_path)


def test_a_method_whose_masks_are_all_empty_is_named(results, tmp_path):
    def change(rows):
        own = (rows["model"] == "uniseg") & (rows["experiment"] == "upstream")
        some = (rows["model"] == "dodnet") & (rows["task"] == "toy_liver")
        for chosen in (own, some):
            found = chosen & (rows["status"] == "ok")
            rows.loc[found, ["value", "status", "prediction_volume_mm3"]] = ["", "prediction_empty", "0"]
            invented = chosen & (rows["status"] == "reference_empty")
            rows.loc[invented, ["value", "status", "prediction_volume_mm3"]] = ["", "both_empty", "0"]
        return rows

    assert failures.empty_sentences(Run(results), "upstream") == []
    assert failures.empty_sentences(changed(results, tmp_path, change), "upstream") == [
        "UniSeg predicts nothing: all its masks are empty.",
        "DoDNet (dynamic head) predicts nothing on Liver and tumour (CT): all its masks there are empty.",
    ]


def test_a_downstream_task_that_was_seen_upstream_is_named(results, tmp_path):
    def change(rows):
        return rows.assign(dataset=rows["dataset"].replace("toy_abdomen", "toy_liver"))

    assert failures.seen_sentences(Run(results)) == []
    (text,) = failures.seen_sentences(changed(results, tmp_path, change))
    assert text.startswith("Thirteen abdominal organs (CT) is upstream and downstream: pre-trained models have seen")


def test_a_distance_has_the_fraction_of_missed_structures_beside_it(results):
    table = build_table(Run(results), "upstream", "hd95")
    for row in table.rows:
        for cell in row.columns:
            if cell.state == "ok":
                assert missed_text("hd95", cell) == f"{100 * cell.n_missed / cell.n_expected:.0f} % missed"
    best = table.ranking()[0]
    assert f", {missed_text('hd95', best.mean)})" in sentences.leading_sentence(table, None)


def test_a_report_depends_on_no_file_that_its_fingerprint_leaves_out(tmp_path):
    """Every file of the checkout that a rendering opens is under the folders whose bytes make it stale."""
    results = write_run(tmp_path / "results", seeds=(0,), cases=3, upstream=2, methods=3)
    program = (
        "import sys; seen = set()\n"
        "sys.addaudithook(lambda event, args: seen.add(str(args[0])) if event == 'open' else None)\n"
        "from pathlib import Path\n"
        "from segbench.reporting import page\n"
        "page.statistics_of = lambda *_: None\n"
        f"page.render(Path({str(results)!r}), Path({str(tmp_path / 'report')!r}))\n"
        "print(*seen, sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    opened = {Path(name).resolve() for name in done.stdout.splitlines()}
    own = [path.relative_to(ROOT) for path in opened if path.is_relative_to(ROOT) and ".venv" not in path.parts]
    data = {path for path in own if path.suffix not in (".py", ".pyc") and path.suffix}
    assert {"page.html.j2", "page.css", "measured_coverage.csv", "tables.csv"} <= {path.name for path in data}
    folders = [Path(folder) for folder in REPORTING_FOLDERS]
    assert not [
        path
        for path in data
        if path.suffix not in REPORTING_FILES or not any(path.is_relative_to(folder) for folder in folders)
    ]
