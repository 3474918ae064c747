"""One GPU for one job, or for as many as are asked for: a lease, held by the process that computes on the device.

A lease is an exclusive `flock` on a file that is named by the device's UUID; a device for several jobs has several. The
kernel gives it back when the process ends, however it ends. `CUDA_VISIBLE_DEVICES` names the leased device before CUDA
starts. Under a scheduler, which gives devices to jobs itself, there are no leases. PyTorch is not imported here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segbench.core.errors import Problem, input_error

VISIBLE = "CUDA_VISIBLE_DEVICES"
DEVICE_FILES = ("nvidia[0-9]*", "dxg", "kfd")
"""Files of /dev that a GPU has: of NVIDIA's driver, of Windows' subsystem for Linux, of AMD's driver."""
FAKE = "SEGBENCH_FAKE_DEVICES"
"""For tests: UUIDs with commas between, of devices that are not asked for."""
FOLDER = "SEGBENCH_LEASES"
"""Where the files of leases are; default: a folder for all users of this machine below the temporary one."""
PER_DEVICE = "SEGBENCH_JOBS_PER_GPU"
"""How many jobs may compute on one device at a time; default 1. Their memory has to fit together, and all users of a
machine have to set the same number: whoever sets a smaller one does not see the others' leases of further slots."""
SCHEDULER_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")
"""Set in jobs of Slurm, PBS, LSF and Grid Engine."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.001, 0.5
WAIT_FRACTION = 0.01
"""Between two looks at the leases passes this fraction of the time waited so far."""


LAUNCHED = "TORCHELASTIC_RUN_ID"
"""Set in the processes that `torchrun` starts."""


@dataclass(frozen=True)
class Launched:
    """Number of this process among those that `torchrun` started for one job, on all machines and on this one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def launched() -> Launched:
    """Return which of the processes of a job this one is; the only one where `torchrun` did not start it."""
    if not os.environ.get(LAUNCHED):
        return Launched()
    return Launched(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))


@dataclass(frozen=True)
class Device:
    """A GPU; `number` is its position in the list of the driver."""

    number: int
    uuid: str
    name: str


class Lease:
    """Use of a device, exclusive unless several jobs are asked for, until `release`, or the end of the process."""

    def __init__(self, device: Device, descriptor: int):
        self.device = device
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Give the device back; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_held: list[Lease] = []


@dataclass(frozen=True)
class _Taken:
    """When this process took its device, and what the device had used until then."""

    uuid: str
    time: float
    joules: float | None


_taken: list[_Taken] = []


def scheduler() -> str | None:
    """Return the variable by which a scheduler shows that it gave this process its devices, or None."""
    return next((name for name in SCHEDULER_VARIABLES if os.environ.get(name)), None)


def devices() -> list[Device]:
    """Return the GPUs of this machine, only those that `CUDA_VISIBLE_DEVICES` names where it is set; none without."""
    found = _all_devices()
    visible = os.environ.get(VISIBLE)
    if visible is None:
        return found
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return [device for name in names for device in found if name == str(device.number) or device.uuid.startswith(name)]


def machine_devices() -> int:
    """Return how many GPUs this machine has, visible or not."""
    return len(_all_devices())


def _all_devices() -> list[Device]:
    fake = os.environ.get(FAKE)
    if fake is not None:
        names = [name for name in fake.split(",") if name]
        return [Device(number, uuid, "fake") for number, uuid in enumerate(names)]
    try:
        found = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):  # no driver, so no device
        return []
    lines = [[part.strip() for part in line.split(",", 2)] for line in found.stdout.splitlines() if line.strip()]
    return [Device(int(number), uuid, name) for number, uuid, name in lines]


class _LockFiles:
    """The lock files of devices, open as long as a process waits, so that a look at one is a single call."""

    def __init__(self, known: Sequence[Device]):
        self._folder = _folder()
        slots = 1 if launched().local_size > 1 else jobs_per_device()  # several processes of a job: a device for each
        self._known = [(slot, device) for slot in range(slots) for device in known]  # first slots of all devices first
        self._files: dict[tuple[int, Device], tuple[int, bool]] = {}

    def lease(self) -> Lease | None:
        """Return a lease of the first device that is free now, None when all are leased."""
        for key in self._known:
            slot, device = key
            if key not in self._files:
                self._files[key] = _open_lock(_lock_path(self._folder, device, slot))
            descriptor, is_own = self._files[key]
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if is_own:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            del self._files[key]
            return Lease(device, descriptor)
        return None

    def close(self) -> None:
        """Close the files of all devices that were not leased."""
        for descriptor, _ in self._files.values():
            os.close(descriptor)
        self._files = {}


def _lock_path(folder: Path, device: Device, slot: int) -> Path:
    return folder / (f"{device.uuid}.lock" if slot == 0 else f"{device.uuid}.{slot}.lock")


def _open_lock(path: Path) -> tuple[int, bool]:
    """Return a descriptor of a lock file and whether this user may write its holder into it; a link is refused.

    Another user's file can be locked but not written: `holders` then shows a former holder.
    """
    create = os.O_CREAT | os.O_EXCL  # a second opening of one's own file follows, for a process that was faster
    reason = ""
    for flags in (os.O_RDWR, os.O_RDWR | create, os.O_RDWR, os.O_RDONLY):
        try:
            return os.open(path, flags | os.O_NOFOLLOW, 0o644), flags != os.O_RDONLY
        except OSError as error:
            reason = reason or (error.strerror if not isinstance(error, FileNotFoundError) else "") or ""
    fix = f"ask its owner to delete it, or set {FOLDER} to a folder of yours"
    raise input_error(path, found=reason, expected="a file that this user can lock", fix=fix)


def wait_for_lease(known: Sequence[Device]) -> Lease:
    """Return a lease of one of the devices, of which there is at least one, as soon as one is free."""
    assert known, "nothing to wait for"
    began = time.monotonic()
    with contextlib.closing(_LockFiles(known)) as files:
        while (lease := files.lease()) is None:
            waited = time.monotonic() - began
            time.sleep(min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS + WAIT_FRACTION * waited))
        return lease


def take_device() -> Device | None:
    """Lease a device for the rest of this process and let CUDA see only that one.

    To be called before CUDA starts. A second call returns the device that is leased already.

    Returns:
        The device; None where there is no GPU, or where a scheduler gives devices to jobs.
    """
    if _held:
        return _held[0].device
    known = devices()
    if scheduler():
        own = launched().local_rank
        if own < len(known):
            _note_taken(known[own])
        return None
    if not known:
        return None
    lease = wait_for_lease(known)
    _held.append(lease)
    _note_taken(lease.device)
    os.environ[VISIBLE] = lease.device.uuid
    return lease.device


@contextlib.contextmanager
def leases_of_one_job() -> Iterator[None]:
    """Hold off other jobs that need several devices while this one takes its own."""
    descriptor, _ = _open_lock(_folder() / "several-devices.lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _note_taken(device: Device) -> None:
    if not _taken:
        _taken.append(_Taken(device.uuid, time.monotonic(), energy_joules(device.uuid)))


def device_costs() -> dict[str, float]:
    """Return what this process used of its device since it took it; nothing without one.

    Keys: device_seconds; energy_joules, of the whole device, where NVML tells it and no other job shares the device.
    """
    if not _taken:
        return {}
    taken = _taken[0]
    costs, now = {"device_seconds": round(time.monotonic() - taken.time, 3)}, energy_joules(taken.uuid)
    if taken.joules is not None and now is not None and jobs_per_device() == 1:  # it is that of the whole device
        costs["energy_joules"] = round(now - taken.joules, 1)
    return costs


def energy_joules(uuid: str) -> float | None:
    """Return what a device has used since its driver was loaded.

    Args:
        uuid: of the device.

    Returns:
        Joules (`nvmlDeviceGetTotalEnergyConsumption`, NVIDIA Volta or later); None without the package `nvidia-ml-py`
        and for a device that does not tell.
    """
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByUUID(uuid))) / 1000
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None


def holders() -> dict[str, list[int]]:
    """Return UUID -> processes that hold a lease of the device; 0 for one that could not write its number."""
    found: dict[str, list[int]] = {}
    for device in devices():
        found[device.uuid] = []
        for slot in range(jobs_per_device()):
            path = _lock_path(_folder(), device, slot)
            with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as stream:
                try:
                    fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    content = stream.read().strip()
                    found[device.uuid].append(int(content) if content.isdigit() else 0)
    return found


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def jobs_per_device() -> int:
    """Return how many jobs may compute on one device at a time."""
    value = os.environ.get(PER_DEVICE) or "1"
    if not value.isdigit() or int(value) < 1:
        raise input_error(PER_DEVICE, found=repr(value), expected="a number of jobs, 1 or more", fix="unset it for 1")
    return int(value)


def threads_per_job(core_count: int, job_count: int) -> int:
    """Return the threads of one of so many jobs with a device: an equal part of the processors, at least one."""
    return max(1, core_count // max(1, job_count))


def jobs_at_a_time() -> int | None:
    """Return how many jobs may compute on GPUs at a time, None where nothing bounds them: no GPU, or a scheduler."""
    return None if scheduler() else len(devices()) * jobs_per_device() or None


def _folder() -> Path:
    folder = Path(os.environ.get(FOLDER) or Path(tempfile.gettempdir()) / "segbench-leases")
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(PermissionError):
            folder.chmod(0o1777)
    return folder


def device_problems(environment: Mapping[str, str], devices: Path = Path("/dev")) -> list[Problem]:
    """Return a problem when the environment names a GPU and the machine has none; torch would take the processor."""
    named = environment.get(VISIBLE, "").strip()
    if named in ("", "-1") or any(next(devices.glob(pattern), None) for pattern in DEVICE_FILES):
        return []
    fix = f"remove {VISIBLE} to work on the processor, or run where the GPU is"
    return [Problem(VISIBLE, repr(named), "a GPU of this machine", fix)]
