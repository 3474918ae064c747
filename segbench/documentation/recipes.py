"""The page of training recipes, generated from cards: `python -m segbench.documentation.models` writes it."""

from __future__ import annotations

from typing import Any

from segbench.core.cards import model_cards, objective_cards
from segbench.core.code import ROOT
from segbench.experiment.config import Recipe
from segbench.experiment.config.training import merged, recipe_text

PAGE = ROOT / "docs" / "recipes.md"
HEAD = """\
# Training recipes

Generated from the cards of the model files by `python -m segbench.documentation.models`; do not edit.

A recipe says how weights are learnt. Its keys are those of `training` that config/README.md lists before
`iterations_per_task`: budget, arithmetic, states, limits and validation are the experiment's for every model.
An entry of `upstream.models`, `upstream.self_supervised` or `downstream.models` chooses one:

```yaml
upstream:
  models:
    - uniseg                                     # recipe: equal, that of `training`
    - {name: unetr, recipe: published}           # that of its card
    - {name: unetr, recipe: tuned}               # that of `training`, with a learning rate that it chooses
    - {name: unetr, id: unetr_slow, recipe: {optimiser: adamw, initial_learning_rate: 5.0e-5}}
```

**One rule decides between several sources**: defaults < `training` < `downstream.training` < the recipe of the entry.
`published` takes every key that the card states, has no warm-up unless the card states one, and leaves the others as
the experiment has them. A layer that names another optimiser or another schedule drops what earlier layers said of the
former one alone (`momentum`, `betas`, `epsilon`, `poly_exponent`).

**Each recipe has tables and families of tests of its own.** The score table has the column `recipe` (`equal`,
`published`, `tuned`, `own`; `none` for controls and external models, which stand in every table), and the same network
may be trained by several. A report never ranks models of different recipes together.

**Refused before anything runs**: a warm-up that leaves no step, momentum with Adam or AdamW, betas with SGD, a drop
path for a network without this option, an average of the weights without a decay between 0 and 1 (`ema_decay`),
`published` for a card that states no recipe, a key of the budget in a recipe, and what is listed under tuning.

**Budgets.** The caption of each table states steps, patches and training hours, and the FLOPs of the forward passes
over all patches (a backward pass takes about twice as many), of joint networks in total and per task. Downstream, the
initialisation `scratch_combined` trains a network from scratch for the steps of pre-training and fine-tuning together:
those of all tasks of `upstream`, and those of `downstream`.

With `ema_decay` the averaged weights are what is scored; a resumable state holds both. What is not offered: LAMB, which
PyTorch does not have, RMSprop, a learning rate that falls in steps or by the score of validation cases, and a search
for anything but the learning rate.

## Tuned: the same search for every model

One learning rate does not suit all networks. `tuned` lets each choose its own from one grid, at one stated cost, and
changes nothing else of the equal recipe:

```yaml
training:
  tuning: {learning_rates: [0.003, 0.01, 0.03], iterations_per_task: 500, validation_fraction: 0.2}
```

Each job makes one short trial for each rate. A part of the training patients is held out of the trials and scores
them: the patients of each task are ranked by a seed of fold and patient, and the first `validation_fraction` of them,
rounded down and at least one, are held out; a patient that one task holds out is held out in all tasks of its
namespace. They are the same in all tuned jobs of an experiment, and never those that `training.validation_fraction` of
the experiment keeps for learning curves. All trials of a job start from the same weights and see the same draws. At its
end a trial is scored by the mean Dice over the structures and held-out cases of each task, then over tasks, on the
preprocessed grid, with windows that overlap by half and without mirroring. The rate of the largest mean Dice is chosen,
of equal ones the smallest; a trial that diverges loses to any other. The training that follows sees **all** training
cases. **Test cases are on neither side.** Intensities of a preprocessing recipe are those of all training cases, in
trials too.

**Charged.** Training time and steps of a tuned job, and the patches and FLOPs that follow from them, hold its trials;
the time limit counts them, and `forecast` expects them. The forward passes that score trials are in the time alone.
`outcome.json` of the training lists each trial (rate, Dice of each task, seconds, steps), the chosen rate and the cases
that scored the trials; the legend of the table states the grid and the rates that were chosen. A killed job goes on
with the trial that it was in.

**Refused**: an entry with `recipe: tuned` without `training.tuning`; a grid of fewer than two rates, or one that is
named twice, or one that is not above 0; a fraction that is not above 0 or is above 0.5; a self-supervised objective; a
warm-up that leaves no step of a trial; a task with fewer than two training patients. `training.tuning` without such an
entry does nothing and changes no identity.

## Published and equal, model by model

The equal recipe with its defaults: {equal}. "Same" means that the card states the same value as this default.
"""


def recipes_page() -> str:
    """Return docs/recipes.md: the rules, then one table with a row for every model and objective that trains."""
    cards = {name: card for name, card in model_cards().items() if card["kind"] != "control"} | objective_cards()
    rows = ["| model | published | equal | source | what differs beside |", "|---|---|---|---|---|"]
    rows += [_row(name, card["published_recipe"]) for name, card in sorted(cards.items())]
    return HEAD.replace("{equal}", recipe_text(Recipe())) + "\n" + "\n".join(rows) + "\n"


def _row(name: str, published: dict[str, Any] | None) -> str:
    if published is None:
        return f"| `{name}` | not read |  |  |  |"
    keys = published["keys"]
    equal = Recipe().effective()
    changed = Recipe(**merged(Recipe().model_dump(), keys)).effective()
    words, ours = [], []
    for key, value in keys.items():
        words.append(f"{key} {_shown(changed.get(key, value))}")
        if equal.get(key) != changed.get(key):
            ours.append(f"{key} {_shown(equal[key])}" if key in equal else f"no {key}")
    differs = "; ".join(published["not_taken"]) or "nothing known"
    own = ", ".join(ours) or ("same" if keys else "")
    return f"| `{name}` | {', '.join(words) or 'not offered'} | {own} | {published['source']} | {differs} |"


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
