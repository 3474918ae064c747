"""The allocator keeps what is freed: fewer page faults, and nothing happens elsewhere than with glibc."""

import json
import platform
import subprocess
import sys

import pytest

from segbench.core import memory
from tests.paths import ROOT

FAULTS = """
import json, resource, sys
from segbench.core.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "kept" else None
bytes(bytearray(40_000_000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    bytearray(20_000_000)[:] = b"1" * 20_000_000
print(json.dumps([kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


def faults(how):
    command = [sys.executable, "-c", FAULTS, how]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_memory_is_used_again_without_page_faults():
    kept, few = faults("kept")
    assert kept is True
    assert few < 0.2 * faults("as it is")[1]


@pytest.mark.parametrize("system", ["Darwin", "Windows"])
def test_another_system_is_left_alone(monkeypatch, system):
    monkeypatch.setattr(memory.platform, "system", lambda: system)
    monkeypatch.setattr(memory.ctypes, "CDLL", None)
    assert memory.keep_freed_memory() is False


def test_another_c_library_is_left_alone(monkeypatch):
    class Musl:
        def __init__(self, name):
            pass

    monkeypatch.setattr(memory.ctypes, "CDLL", Musl)
    assert memory.keep_freed_memory() is False


def test_an_older_glibc_gets_the_largest_block_that_it_accepts(monkeypatch):
    calls = []

    class Older:
        gnu_get_libc_version = None

        def __init__(self, name):
            pass

        def mallopt(self, option, value):
            calls.append((option, value))
            return int(value <= 1 << 25)

    monkeypatch.setattr(memory.platform, "system", lambda: "Linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", Older)
    monkeypatch.setattr(memory, "GROW_BY", 1 << 20)
    assert memory.keep_freed_memory() is True
    assert calls == [(-3, 1 << 30), (-3, 1 << 25), (-1, -1), (-2, 1 << 20)]
