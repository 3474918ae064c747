"""What pre-trained weights add: each fine-tuned network beside its own training from scratch, and what they cost."""

from __future__ import annotations

from segbench.core.vocabulary import FROM_SCRATCH, SCRATCH, SCRATCH_COMBINED
from segbench.reporting.metrics import about
from segbench.reporting.run import Method, Run
from segbench.reporting.sections import SmallTable
from segbench.reporting.sentences import seconds_text
from segbench.reporting.statistics import Statistics, label_of, over_tasks
from segbench.reporting.tables import DASH, Table, interval_text, points, shown, unit_of

HEAD = [
    "Gain over own scratch",
    "Interval",
    "Network",
    "Method",
    "Mean over tasks",
    "Fine-tuning",
    "With pre-training",
]


def scratch_control(run: Run, method: Method) -> Method | None:
    """Return the same network trained from scratch by the same recipe, or None where the run has none."""
    same = (other for other in run.methods_of(method.experiment) if other.model == method.model)
    return next((other for other in same if other.initialisation == SCRATCH), None)


def gains_table(run: Run, table: Table, statistics: Statistics) -> SmallTable | None:
    """Return one row per fine-tuned method, its gain over its own scratch control first; None without such a method.

    Args:
        run: the run.
        table: its table of downstream tasks.
        statistics: statistics of the same metric.

    Returns:
        The table: networks stand together, each control below its pre-trained methods.
    """
    tuned = [row for row in table.rows if row.method.kind == "transfer"]
    if not any(row.method.initialisation != SCRATCH for row in tuned):
        return None
    metric, rows = table.metric, []
    order = list(dict.fromkeys(row.method.model for row in tuned))
    for row in sorted(tuned, key=lambda row: (order.index(row.method.model), row.method.initialisation == SCRATCH)):
        method, control = row.method, scratch_control(run, row.method)
        gain, limits = DASH, DASH
        if method.initialisation == SCRATCH:
            gain, limits = "control", DASH
        elif control is not None:
            found = over_tasks(statistics.paired, label_of(method), label_of(control))
            gain = shown(metric, found["difference"], sign=True)
            limits = interval_text(metric, found["low"], found["high"], sign=True)
        own, before = _seconds(run, method)
        with_before = seconds_text(own + before) if before is not None else DASH
        rows.append(
            [gain, limits, method.model, method.title, shown(metric, row.mean.mean), seconds_text(own), with_before]
        )
    combined = ""
    if any(row.method.initialisation == SCRATCH_COMBINED for row in tuned):
        combined = (
            " From scratch at the combined budget, a network makes the steps of pre-training and fine-tuning on the "
            "downstream task alone."
        )
    return SmallTable(
        "Gain of pre-trained weights",
        f"{run.data_word(table.experiment)}{about(metric).title}: each method minus the same network trained from "
        f"scratch by the same recipe, in {points(metric)}, mean over tasks with {run.level} interval, patients paired. "
        f"Mean in {unit_of(metric)}. Training time summed over tasks, mean over seeds, without and with the training "
        f"that made the weights; {DASH} where that is not part of this run." + combined,
        HEAD,
        rows,
    )


def _seconds(run: Run, method: Method) -> tuple[float, float | None]:
    """Return the seconds of fine-tuning, and of the training that made the weights: 0 from scratch, None if unknown.

    Both are means over folds and seeds; the weights are made once for all tasks.
    """
    jobs = run.jobs(method.experiment, method.key)
    repetitions = max(1, len({(job.fold, job.seed) for job in jobs}))
    own = sum(job.train_seconds for job in jobs) / repetitions
    if method.initialisation in FROM_SCRATCH:
        return own, 0.0
    known = {job.job: job.train_seconds for job in run.record.jobs}
    sources = {job.match.source for job in jobs if job.match is not None}
    if not sources or not sources <= known.keys():
        return own, None
    return own, sum(known[name] for name in sources) / repetitions
