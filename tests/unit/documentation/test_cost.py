"""The cost card, on a network whose cost can be worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.flops import forward_flops
from models.interface import NetworkSpec, SegmentationModel
from segbench.core.task import TaskSet
from segbench.documentation import cost

SPEC = NetworkSpec(
    patch_size_zyx=(8, 16, 16),
    base_features=4,
    max_features=8,
    pool_kernels_zyx=((1, 2, 2),),
    conv_kernels_zyx=((1, 3, 3), (3, 3, 3)),
)
TASKS = TaskSet([next(iter(cost.paper_tasks()))])


class OneConvolution(SegmentationModel):
    """One 1x1x1 convolution from one channel to four classes."""

    def __init__(self):
        super().__init__(TASKS, SPEC)
        self.head = nn.Conv3d(1, 4, 1)

    def encode(self, images_BCZYX):
        return images_BCZYX

    def decode(self, features, task):
        return [self.head(features)]


def test_flops_are_two_per_multiply_add():
    # one input channel times four classes at each of 8 x 16 x 16 voxels, a multiplication and an addition each
    assert forward_flops(OneConvolution(), (8, 16, 16)) == 2 * 1 * 4 * 8 * 16 * 16


def test_paper_tasks_have_the_channels_of_the_paper():
    assert [task.num_channels for task in cost.paper_tasks()] == [1] * 9 + [2, 4]


def test_paper_tasks_follow_a_narrow_card():
    card = {"title": "narrow", "channels": [1], "max_classes": 2}
    assert [(task.num_channels, task.num_classes) for task in cost.paper_tasks(card)] == [(1, 3)] * 9


def test_candidate_patches_grow_and_fit_the_network():
    patches = cost.candidate_patches(SPEC)
    volumes = [z * y * x for z, y, x in patches]
    assert volumes == sorted(set(volumes))
    assert SPEC.patch_size_zyx in patches
    assert all(y % 2 == 0 and x % 2 == 0 for _, y, x in patches)


def test_largest_patch_is_the_last_candidate_when_nothing_stops_it(monkeypatch):
    monkeypatch.setattr(cost, "SCALES", (0.5, 1.0))
    result = cost.largest_fit(OneConvolution(), SPEC, seconds_limit=600)
    assert result["largest_patch_zyx"] == cost.candidate_patches(SPEC)[-1]
    assert result["limited_by"] == "the largest patch tried"
    assert result["train_step_seconds"] > 0


def test_time_limit_stops_after_the_first_patch():
    result = cost.largest_fit(OneConvolution(), SPEC, seconds_limit=0)
    assert result["largest_patch_zyx"] == cost.candidate_patches(SPEC)[0]
    assert result["limited_by"] == "time"


def test_memory_limit_stops_and_says_so(monkeypatch):
    monkeypatch.setattr(
        cost, "measure", lambda *_: {"peak_memory_mib": 1.0, "train_step_seconds": 0.0, "forward_seconds": 0.0}
    )
    monkeypatch.setattr(cost, "free_memory_bytes", lambda _: 2**20)
    assert cost.largest_fit(OneConvolution(), SPEC, seconds_limit=600)["limited_by"] == "memory"


def test_out_of_memory_on_the_first_patch_is_reported_not_raised(monkeypatch):
    def measure(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(cost, "measure", measure)
    result = cost.largest_fit(OneConvolution(), SPEC, seconds_limit=600)
    assert result["largest_patch_zyx"] is None
    assert result["limited_by"] == "memory"


def test_peak_memory_sees_what_a_step_holds():
    size = 64 * 2**20
    for _ in range(2):  # the second time the memory is free but may still be resident
        held = cost._peak_bytes(torch.device("cpu"), lambda: [torch.ones(2**18) for _ in range(64)])
        assert held is None or size * 0.8 < held < size * 1.5


def test_cost_card_of_a_registered_model():
    card = cost.cost_card("nnunet_plain", cost.paper_tasks(), SPEC, seconds_limit=0)
    assert card["model"] == "nnunet_plain"
    # 1x3x3: 1->4 and 4->4 with bias and norm; 3x3x3: 4->8 and 8->8; up 8->4; decoder 8->4 and 4->4; head 4->4
    encoder = (1 * 4 * 9 + 4 + 8) + (4 * 4 * 9 + 4 + 8) + (4 * 8 * 27 + 8 + 16) + (8 * 8 * 27 + 8 + 16)
    decoder = (8 * 4 * 4 + 4) + (8 * 4 * 9 + 4 + 8) + (4 * 4 * 9 + 4 + 8) + (4 * 4 + 4)
    assert card["parameters"] == encoder + decoder


def test_the_page_is_the_table():
    text = cost.cost_page([["model", "parameters"], ["some_net", "12"]], made_by="commit abc")
    assert text.splitlines()[-3:] == ["| model | parameters |", "|---|---|", "| `some_net` | 12 |"]
    assert "at commit abc. Parameters" in text
    assert "free memory of the device" not in text
    timed = cost.cost_page([["model", *cost.TIMED_HEAD], ["some_net", *"123456"]], made_by="commit abc")
    assert "free memory of the device" in timed


def test_the_page_says_who_made_it():
    words = cost.made_by()
    assert f"torch {torch.__version__.split('+')[0]}" in words
    assert words.startswith("commit ")


def test_without_times_nothing_is_run(monkeypatch):
    monkeypatch.setattr(cost, "measure", lambda *_: pytest.fail("a network was run"))
    card = cost.cost_card("nnunet_plain", cost.paper_tasks(), SPEC, timed=False)
    assert card.keys() == {"model", "parameters", "forward_gflops"}
    monkeypatch.setattr(cost, "networks", lambda: {"nnunet_plain": cost.model_cards()["nnunet_plain"]})
    head, row = cost.cost_rows(SPEC, timed=False)
    assert len(head) == len(row) == 4
    assert row[:2] == ["nnunet_plain", f"{card['parameters']:,}"]


def written() -> dict[str, list[str]]:
    """Return model -> further cells of the rows of docs/cost.md."""
    lines = [line for line in cost.PAGE.read_text().splitlines() if line.startswith("| `")]
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    return {name: rest for name, *rest in cells}


def test_the_written_page_has_every_registered_network_and_no_other():
    assert list(written()) == list(cost.networks()), "run python -m segbench.documentation.cost"


def test_the_written_parameters_are_those_of_the_networks():
    """A sample that builds in seconds: the five smallest networks."""
    page = {name: int(cells[0].replace(",", "")) for name, cells in written().items()}
    for name in sorted(page, key=lambda name: page[name])[:5]:
        tasks = cost.paper_tasks(cost.networks()[name])
        found = cost.cost_card(name, tasks, NetworkSpec(), timed=False)
        assert f"{found['parameters']:,}" == written()[name][0], f"{name}: run python -m segbench.documentation.cost"
        assert f"{found['forward_gflops']:,.1f}" == written()[name][2]
