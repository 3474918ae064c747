"""Write docs/parity.md: the largest difference from the original networks, per golden output.

Run `python -m tests.golden.models.parity` where the expected outputs lie beside the checkout, then
`python -m segbench.documentation.models`.
"""

from __future__ import annotations

import platform

import torch

from models.baselines import clip_driven_original, dodnet_original
from models.uniseg import weights
from segbench.core.files import write_text
from tests.golden.models.official import filled, load, seeded_input
from tests.paths import ROOT

PAGE = ROOT / "docs" / "parity.md"
Row = tuple[str, int, str, torch.Tensor, torch.Tensor]


def uniseg() -> list[Row]:
    """Return the compared outputs of the three cases (stems for 1, 2 and 4 channels)."""
    facts, arrays = load("uniseg_official")
    model = weights.from_official(filled(facts["parameters"]))
    size = sum(parameter.numel() for parameter in model.parameters())
    rows = []
    for number, case in enumerate(facts["cases"]):
        full, _, *rest = model.forward_index(seeded_input(case), case["task_id"])
        scales = {"full resolution": full[:, :, ::4, ::4, ::4]}
        scales |= {f"stride {4 * 2**scale}": logits for scale, logits in enumerate(rest)}
        for position, (scale, logits) in enumerate(scales.items()):
            what = f"{case['input_shape'][1]} channel(s), task {case['task_id']}, {scale}"
            rows.append(("uniseg", size, what, logits, torch.from_numpy(arrays[f"case{number}_output{position}"])))
    return rows


def dodnet() -> list[Row]:
    """Return the compared output: three samples with three tasks."""
    facts, arrays = load("dodnet_official")
    model = dodnet_original.from_official(filled(facts["parameters"]))
    (case,) = facts["cases"]
    logits = model.forward_index(seeded_input(case), case["task_id"])[:, :, ::2, ::2, ::2]
    size, what = (
        sum(parameter.numel() for parameter in model.parameters()),
        f"tasks {case['task_id']}, organ and tumour",
    )
    return [("dodnet_original", size, what, logits, torch.from_numpy(arrays["case0_output0"]))]


def clip_driven() -> list[Row]:
    """Return the compared output: the logits of all classes."""
    facts, arrays = load("clip_driven_official")
    model = clip_driven_original.from_official(filled(facts["parameters"]))
    (case,) = facts["cases"]
    logits = model.forward_all(seeded_input(case))[:, :, ::4, ::4, ::4]
    size, what = sum(parameter.numel() for parameter in model.parameters()), f"all {logits.shape[1]} classes"
    return [("clip_driven_original", size, what, logits, torch.from_numpy(arrays["case0_output0"]))]


@torch.no_grad()
def parity_page() -> str:
    """Return the page as text."""
    lines = [
        "## Agreement with the original networks",
        "",
        "Weights are filled by a rule from their names, inputs by seed; compared are the logits that the original "
        "networks answered (float32, CPU, evaluation mode). Accepted is a difference of 0.0001. By "
        f"`python -m tests.golden.models.parity` with PyTorch {torch.__version__.split('+')[0]} on "
        f"{platform.machine()}.",
        "",
        "| model | parameters | output | largest difference | largest logit |",
        "|---|---|---|---|---|",
    ]
    for name, size, what, answer, expected in [*uniseg(), *dodnet(), *clip_driven()]:
        difference = (answer - expected).abs().max().item()
        lines.append(f"| `{name}` | {size:,} | {what} | {difference:.1e} | {expected.abs().max().item():.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_text(PAGE, parity_page())
