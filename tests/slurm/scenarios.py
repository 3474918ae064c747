"""The small workflow on a real SLURM: to the end, cancelled, at its time limit, with a drained node, a new controller.

Started by run.sh, which starts the cluster. Prints a transcript with times; ends with status 1 at the first difference.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

import yaml

from tests.paths import ROOT
from tests.workflow.tiny import CONFIG

TRAINED = "upstream.uniseg.random.joint.f0.s0"
STEPS_PER_TASK = int(os.environ.get("STEPS_PER_TASK", "1200"))
LIMIT_SECONDS = 900.0
STARTED = time.monotonic()
PARTITIONS = {"partitions": {"cpu": {"max_runtime": 60}, "gpu": {"max_runtime": 60, "max_gpu": 2}}}
SMALL = {
    "default-resources": ["runtime=10", "mem_mb=500*attempt", "slurm_extra='--signal=TERM@20'"],
    "set-threads": ["preprocess=1", "train=1", "evaluate=1"],
    "set-resources": [
        *(f"{rule}:runtime=10" for rule in ("preprocess", "train", "evaluate")),
        *(f"{rule}:mem_mb=1000*attempt" for rule in ("preprocess", "train", "evaluate")),
    ],
}
"""What differs from the profile because the node is small; a user of a small cluster edits the same numbers."""


def say(text: str) -> None:
    """Print a line of the transcript."""
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", flush=True)


def check(true: bool, text: str) -> None:
    """Print a line, or end with status 1 and the line as the reason."""
    if not true:
        say(f"FAILED: {text}")
        sys.exit(1)
    say(f"  {text}")


def slurm(*command: str) -> str:
    """Return what a command of SLURM prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Run:
    """The workflow in a folder, through the SLURM profile."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.results = folder / "results" / "tiny"
        folder.mkdir(parents=True)
        self.write_config(save_every_seconds=1.0)
        (folder / "partitions.yaml").write_text(yaml.safe_dump(PARTITIONS))

    def write_config(self, *, save_every_seconds: float) -> None:
        """Write the config of the run; how often a training saves its state changes no result."""
        config = copy.deepcopy(CONFIG)
        config["training"] |= {"iterations_per_task": STEPS_PER_TASK, "save_every_seconds": save_every_seconds}
        config["upstream"] |= {"models": ["uniseg"], "self_supervised": [], "controls": ["empty"]}
        del config["downstream"]
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config))

    def start(self) -> subprocess.Popen:
        """Start the workflow; its output goes to a file."""
        workflow = ROOT / "workflow"
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(workflow / "Snakefile")]
        command += ["--workflow-profile", str(workflow / "profiles" / "slurm")]
        command += ["--directory", str(self.folder), "--configfile", str(self.folder / "config.yaml")]
        command += ["--slurm-partition-config", str(self.folder / "partitions.yaml"), "--latency-wait", "10"]
        command += ["--slurm-init-seconds-before-status-checks", "5"]
        for option, values in SMALL.items():
            command += [f"--{option}", *values]
        self.output = self.folder / f"snakemake-{len(list(self.folder.glob('snakemake-*')))}.log"
        with open(self.output, "w") as stream:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=stream, stderr=subprocess.STDOUT)
        return self.process

    def finish(self, process: subprocess.Popen) -> str:
        """Wait for the end of the workflow and return its output."""
        status = process.wait(timeout=LIMIT_SECONDS)
        text = self.output.read_text()
        if status:
            print(text[-6000:])
        check(status == 0, f"the workflow ended with status {status}")
        return text

    def forget_training(self) -> None:
        """Remove the results of the training, its evaluation and all that is made from them."""
        for rule in ("train", "evaluate"):
            shutil.rmtree(self.results / rule / TRAINED)
        for path in (self.results / "scores.csv", self.results / "rendered.json", self.log_path):
            path.unlink()

    @property
    def state(self) -> Path:
        """Where the training saves its state."""
        return self.results / "state" / "train" / TRAINED / "state.pt"

    @property
    def log_path(self) -> Path:
        """The log of the training."""
        return self.results / "logs" / "train" / f"{TRAINED}.log"

    def training_job(self) -> str | None:
        """Return the number of the SLURM job that trains and has saved a state, or has trained for 15 s."""
        if not self.state.exists() and not (self.log_path.exists() and "steps loss" in self.log()):
            return None
        lines = slurm("squeue", "--noheader", "--states=R", "--format=%i %k").splitlines()
        return next((line.split()[0] for line in lines if "train" in line), None)

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of the weights and of the score table."""
        files = {"weights": self.results / "train" / TRAINED / "weights.pt", "scores": self.results / "scores.csv"}
        return {name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in files.items()}

    def log(self) -> str:
        """Return the log of the training."""
        return self.log_path.read_text()


def wait_for(what: str, condition: Callable[[], object], seconds: float = 300.0) -> None:
    """Wait until a condition holds."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            check(False, f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.2)
    say(f"  {what}")


def to_the_end(run: Run) -> dict[str, str]:
    """Run everything: networks on the GPU partition with a device each, all else on the CPU partition without."""
    say("1. to the end")
    text = run.finish(run.start())
    jobs = [dict(part.split("=", 1) for part in line.split() if "=" in part) for line in _all_jobs()]
    mine = [job for job in jobs if "Comment" in job]
    asked = {job["Comment"]: (job["Partition"], "gres:gpu" in job.get("TresPerJob", "")) for job in mine}
    for comment, (partition, device) in sorted(asked.items()):
        say(f"  job {comment}: partition {partition}, {'one device' if device else 'no device'}")
    networks = {name: item for name, item in asked.items() if TRAINED in name}
    check(bool(networks) and set(networks.values()) == {("gpu", True)}, "train and evaluate asked for a device each")
    others = [item for name, item in asked.items() if TRAINED not in name]
    check(set(others) == {("cpu", False)}, f"{len(others)} other SLURM jobs asked for none")
    check("Error in rule" not in text, "no job was tried twice")
    again = run.finish(run.start())
    check("Nothing to be done" in again, "a second call has nothing to do")
    return run.digests()


def _all_jobs() -> list[str]:
    return slurm("scontrol", "--oneliner", "show", "jobs").splitlines()


def interrupted(
    run: Run, title: str, expected: dict[str, str], interrupt: Callable[[str], None], *, resumed: bool
) -> None:
    """Train again, disturb the training once it has saved a state, and compare the results with those of the first run.

    Args:
        run: a finished run.
        title: what happens.
        expected: digests of the first run.
        interrupt: gets the number of the SLURM job that trains.
        resumed: whether the training must have been continued from its state.
    """
    say(title)
    run.forget_training()
    run.write_config(save_every_seconds=3600.0 if interrupt is limit else 1.0)
    process = run.start()
    wait_for("the training runs", run.training_job)
    job = run.training_job()
    assert job is not None
    say(f"  its state is {'saved' if run.state.exists() else 'not saved yet'}")
    interrupt(job)
    text = run.finish(process)
    if resumed:
        check("continue at step" in run.log(), f"resumed: {_line_with(run.log(), 'continue at step')}")
    else:
        check("continue at step" not in run.log(), "the training was not interrupted")
    say(f"  jobs that were tried again: {text.count('Trying to restart job')}")
    outcome = json.loads((run.results / "train" / TRAINED / "outcome.json").read_text())
    check(outcome["iterations"] == 2 * STEPS_PER_TASK, f"counted once: {outcome['iterations']} steps")
    check(run.digests() == expected, f"weights and scores are those of the first run: {expected}")


def _line_with(text: str, words: str) -> str:
    return next((line for line in text.splitlines() if words in line), f"no line with {words!r}")


def cancel(job: str) -> None:
    """Cancel the SLURM job."""
    slurm("scancel", job)
    say(f"  scancel {job}")


def limit(job: str) -> None:
    """Give the SLURM job a time limit of a minute; SLURM then warns it, at the latest 20 s before the limit."""
    slurm("scontrol", "update", f"jobid={job}", "timelimit=1")
    say(f"  job {job} now has a time limit of one minute; SLURM sends SIGTERM up to 50 s before it")
    wait_for("the job ended", lambda: _state(job) not in ("RUNNING", "COMPLETING"))
    say(f"  SLURM says: {_state(job)}")
    saved = Path(f"results/tiny/state/train/{TRAINED}/state.pt").exists()
    check(saved, "the state is saved; the training itself saves it only once an hour")


def _state(job: str) -> str:
    return slurm("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T").strip()


def drain(job: str) -> None:
    """Drain the node, see the next job wait, and give the node back."""
    node = slurm("sinfo", "--noheader", "--format=%n").split()[0]
    slurm("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    say(f"  drained {node} while job {job} runs")
    wait_for("the training ends in order on the draining node", lambda: _state(job) == "COMPLETED")
    wait_for("the evaluation waits", lambda: "evaluate" in slurm("squeue", "--noheader", "--states=PD", "--format=%k"))
    slurm("scontrol", "update", f"nodename={node}", "state=resume")
    say("  the node is back")


def restart_controller(job: str) -> None:
    """End the controller, wait, and start it again."""
    cluster = Path(os.environ["CLUSTER"])
    os.kill(int((cluster / "slurmctld.pid").read_text()), 15)
    say(f"  ended the controller while job {job} runs")
    time.sleep(8)
    subprocess.run(["slurmctld", "-f", os.environ["SLURM_CONF"]], check=True)
    say("  started it again after 8 s")


def main() -> int:
    """Run all scenarios, or those whose numbers are given."""
    chosen = set(sys.argv[2:]) or {"2", "3", "4", "5"}
    run = Run(Path(sys.argv[1]) / "run")
    os.chdir(run.folder)
    try:
        scenarios(run, chosen)
    finally:
        run.process.kill()
    say("all as expected")
    return 0


def scenarios(run: Run, chosen: Collection[str]) -> None:
    """Run the workflow to its end, then the chosen scenarios."""
    expected = to_the_end(run)
    for number, title, interrupt, resumed in (
        ("2", "scancel in the middle", cancel, True),
        ("3", "the time limit is reached", limit, True),
        ("4", "the node is drained", drain, False),
        ("5", "the controller is restarted", restart_controller, False),
    ):
        if number in chosen:
            interrupted(run, f"{number}. {title}", expected, interrupt, resumed=resumed)


if __name__ == "__main__":
    sys.exit(main())
