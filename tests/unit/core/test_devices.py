"""Leases: a device is used by one process, chosen before CUDA starts, and not at all under a scheduler."""

import contextlib
import errno
import os
import subprocess
import sys

import pytest

from segbench.core import devices
from segbench.core.errors import InputError, is_machine_failure
from tests.paths import ROOT


def lease_of(known):
    """Return a lease of the first device that is free now, None when all are leased."""
    with contextlib.closing(devices._LockFiles(known)) as files:
        return files.lease()


@pytest.fixture(autouse=True)
def two_devices(monkeypatch, tmp_path):
    monkeypatch.setenv(devices.FAKE, "GPU-a,GPU-b")
    monkeypatch.setenv(devices.FOLDER, str(tmp_path / "leases"))
    monkeypatch.setattr(devices, "_held", [])
    monkeypatch.setattr(devices, "_taken", [])
    for name in (*devices.SCHEDULER_VARIABLES, devices.VISIBLE, devices.PER_DEVICE):
        monkeypatch.setenv(name, "")  # so that what a lease sets is put back
        monkeypatch.delenv(name)


def test_each_lease_is_of_another_device_and_a_released_one_comes_again():
    known = devices.devices()
    first, second = lease_of(known), lease_of(known)
    assert [first.device.uuid, second.device.uuid] == ["GPU-a", "GPU-b"]
    assert lease_of(known) is None
    assert devices.holders() == {"GPU-a": [os.getpid()], "GPU-b": [os.getpid()]}
    first.release()
    first.release()
    assert devices.holders() == {"GPU-a": [], "GPU-b": [os.getpid()]}
    assert devices.wait_for_lease(known).device.uuid == "GPU-a"


def test_a_process_takes_one_device_and_cuda_sees_only_that():
    held = lease_of(devices.devices())
    taken = devices.take_device()
    assert (taken.uuid, os.environ[devices.VISIBLE]) == ("GPU-b", "GPU-b")
    assert devices.take_device() == taken, "one per process"
    held.release()


@pytest.mark.parametrize("variable", devices.SCHEDULER_VARIABLES)
def test_a_scheduler_gives_devices_itself(monkeypatch, variable):
    monkeypatch.setenv(variable, "7")
    assert devices.take_device() is None
    assert devices.VISIBLE not in os.environ
    assert devices.jobs_at_a_time() is None


def test_visible_devices_bound_what_is_leased(monkeypatch):
    assert devices.jobs_at_a_time() == 2
    for visible, expected in {"1": ["GPU-b"], "GPU-a": ["GPU-a"], "1,0": ["GPU-b", "GPU-a"], "": []}.items():
        monkeypatch.setenv(devices.VISIBLE, visible)
        assert [device.uuid for device in devices.devices()] == expected
    assert devices.jobs_at_a_time() is None
    assert devices.take_device() is None


def test_a_machine_without_a_driver_has_no_device(monkeypatch):
    monkeypatch.delenv(devices.FAKE)
    monkeypatch.setenv("PATH", "")
    assert devices.devices() == []
    assert devices.jobs_at_a_time() is None


def test_several_jobs_share_a_device_when_asked_after_each_device_has_one(monkeypatch):
    monkeypatch.setenv(devices.PER_DEVICE, "2")
    known = devices.devices()
    leases = [lease_of(known) for _ in range(4)]
    assert [lease.device.uuid for lease in leases] == ["GPU-a", "GPU-b", "GPU-a", "GPU-b"]
    assert lease_of(known) is None
    assert devices.holders() == dict.fromkeys(["GPU-a", "GPU-b"], [os.getpid()] * 2)
    assert devices.jobs_at_a_time() == 4
    for lease in leases:
        lease.release()


def test_the_processes_of_one_job_never_share_a_device(monkeypatch):
    monkeypatch.setenv(devices.PER_DEVICE, "2")
    for name, value in {devices.LAUNCHED: "x", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    known = devices.devices()
    assert [lease_of(known[:1]) is None for _ in range(2)] == [False, True]


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_number_of_jobs_that_cannot_be_is_refused(monkeypatch, value):
    monkeypatch.setenv(devices.PER_DEVICE, value)
    with pytest.raises(InputError, match=f"{devices.PER_DEVICE}: found '{value}'"):
        devices.jobs_at_a_time()


def test_threads_are_an_equal_part_of_the_processors():
    assert [devices.threads_per_job(*counts) for counts in [(16, 4), (16, 3), (2, 4), (8, 0)]] == [4, 5, 1, 8]


def test_a_dead_holder_gives_its_device_back():
    script = (
        "import time; from segbench.core import devices; print(devices.take_device().uuid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().strip() == "GPU-a"
        assert devices.holders()["GPU-a"] == [process.pid]
        process.kill()
        process.wait()
    assert devices.holders()["GPU-a"] == []


def test_a_link_in_the_place_of_a_lock_is_refused_and_its_target_stays(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "GPU-a.lock").symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match=rf"GPU-a.lock: found .*; expected a file .* or set {devices.FOLDER} to"):
        lease_of(devices.devices())
    assert (tmp_path / "mine").read_text() == "mine"


def test_the_lock_of_another_user_is_locked_and_not_written(tmp_path, monkeypatch):
    (tmp_path / "leases").mkdir()
    lock = tmp_path / "leases" / "GPU-a.lock"
    lock.write_text("7\n")
    opened = os.open

    def as_another_user(path, flags, *mode):
        if path == lock and flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *mode)

    monkeypatch.setattr(devices.os, "open", as_another_user)
    first, second = lease_of(devices.devices()), lease_of(devices.devices())
    assert [first.device.uuid, second.device.uuid] == ["GPU-a", "GPU-b"]
    assert lock.read_text() == "7\n"
    first.release()
    assert lease_of(devices.devices()).device.uuid == "GPU-a"


def test_taking_a_device_imports_no_numerical_library():
    script = "import sys; from segbench.core import devices; print({'torch', 'numpy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (OSError(errno.EFBIG, "File too large"), True),
        (RuntimeError("the loss is nan at step 3"), False),
        (ValueError("CUDA error in a file's name"), False),
    ],
)
def test_a_failure_of_a_device_is_one_of_the_machine(error, expected):
    assert is_machine_failure(error) is expected


class Nvml:
    """Stands in for the module `pynvml`: devices that use 250 W, by a clock of one second for each look."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.seconds, self.open = 0, 0

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if not uuid.startswith("GPU-"):
            raise self.NVMLError
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        self.seconds += 1
        return 250_000 * self.seconds


@pytest.mark.parametrize("variable", [None, "SLURM_JOB_ID"])
def test_energy_is_that_of_the_device_since_it_was_taken(monkeypatch, variable):
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    if variable:
        monkeypatch.setenv(variable, "7")
    assert devices.device_costs() == {}, "no device, no cost"
    devices.take_device()
    costs = devices.device_costs()
    assert costs["energy_joules"] == 250.0
    assert 0 <= costs["device_seconds"] < 60
    assert nvml.open == 0


def test_a_device_that_does_not_tell_its_energy_has_seconds_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    monkeypatch.setenv(devices.FAKE, "MIG-a")
    devices.take_device()
    assert list(devices.device_costs()) == ["device_seconds"]


def test_without_nvml_there_is_no_energy(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    devices.take_device()
    assert list(devices.device_costs()) == ["device_seconds"]


def test_processes_that_torchrun_starts_know_their_number(monkeypatch):
    assert devices.launched() == devices.Launched(0, 1, 0, 1)
    names = {devices.LAUNCHED: "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert devices.launched() == devices.Launched(3, 4, 1, 2)


def test_one_job_with_several_devices_takes_them_at_a_time():
    with devices.leases_of_one_job():
        other = (
            "from segbench.core import devices; print('waits', flush=True)\n"
            "with devices.leases_of_one_job(): print('in')"
        )
        process = subprocess.Popen([sys.executable, "-c", other], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
    assert process.communicate(timeout=30)[0] == "in\n"
