"""Who loads the patches of a training."""

import pytest
import torch

from segbench.cli.train import loading_workers


@pytest.mark.parametrize(("kind", "threads", "expected"), [("cuda", 4, 3), ("cuda", 1, 1), ("cpu", 4, 0)])
def test_beside_a_gpu_all_threads_but_one_load_patches(monkeypatch, kind, threads, expected):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert loading_workers(kind) == expected
