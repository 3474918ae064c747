"""Section `training`: the training recipe, which a model's card or entry may change, and the budget, which it may not.

One rule decides between several sources: defaults < `training` < `downstream.training` < the recipe of the entry,
which is its card's published recipe (`published`) or the entry's own values. A recipe changes the keys of `Recipe`
alone; the budget and the arithmetic are the experiment's. An entry with the recipe `tuned` chooses its learning rate by
the section `tuning`, which is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from segbench.core.errors import Problem
from segbench.experiment.config.section import Axes, Distinct, Precision, Section, one_problem

ONLY_WITH = {
    "momentum": ("optimiser", ("sgd",)),
    "betas": ("optimiser", ("adam", "adamw")),
    "epsilon": ("optimiser", ("adam", "adamw")),
    "poly_exponent": ("learning_rate_schedule", ("poly",)),
}
"""Key -> the key that it belongs to, and the values of that key which know it."""
VALIDATION = ("validation_fraction", "validation_points")
"""Keys of `training` that act only where a fraction of the training patients is held out."""
Beta = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Rates = Annotated[tuple[Annotated[float, Field(gt=0)], ...], *Distinct]
Steps = Annotated[int, Field(strict=True, ge=0)]
Warmup = Annotated[Steps | Fraction, one_problem("a whole number of steps, or a fraction between 0 and 1")]


class Recipe(Section):
    """How weights are learnt: what a card's `published_recipe` and an entry's `recipe` may state."""

    batch_size: int = Field(2, ge=1, description="Patches per step, all of one task.")
    schedule: Literal["equal", "proportional", "sqrt"] = Field(
        "equal", description="Fraction of each task in the steps: equal as published, by size, or by its square root."
    )
    optimiser: Literal["sgd", "adam", "adamw"] = Field("sgd", description="Optimiser: one of torch.optim.")
    initial_learning_rate: float = Field(0.01, gt=0, description="Learning rate of the first step after warm-up.")
    momentum: float | None = Field(None, ge=0, lt=1, description="Nesterov momentum of SGD; default 0.99.")
    betas: tuple[Beta, Beta] | None = Field(None, description="Decay rates of Adam and AdamW; default [0.9, 0.999].")
    epsilon: float | None = Field(
        None, gt=0, description="Constant in the denominator of Adam and AdamW; default 1e-8."
    )
    weight_decay: float = Field(3e-5, ge=0, description="Weight decay; decoupled from the gradient in AdamW.")
    learning_rate_schedule: Literal["poly", "cosine", "constant"] = Field(
        "poly", description="Decay of the learning rate from step to step, down to zero or not at all."
    )
    poly_exponent: float | None = Field(
        None, ge=0, description="Exponent of the polynomial decay of the learning rate; default 0.9."
    )
    warmup: Warmup = Field(
        0,
        description="Steps in which the learning rate rises linearly before it decays: a whole number of steps, or a "
        "fraction of the run between 0 and 1.",
    )
    gradient_clip: float | None = Field(12.0, gt=0, description="Largest norm of the gradient; null for no limit.")
    drop_path: float | None = Field(
        None, ge=0, lt=1, description="Stochastic depth of a network that has this option; null for its own default."
    )
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of the exponential moving average of the weights, which is then what is scored; null for "
        "the weights themselves.",
    )
    foreground_fraction: float = Field(
        0.33,
        ge=0,
        le=1,
        description="Fraction of a batch, its last samples, that is forced to foreground, rounded as in nnU-Net: 0.33 "
        "of 2 is one sample.",
    )
    augmentation: Literal["none", "light", "full"] = Field("full", description="Augmentation of the nnU-Net family.")
    mirror_axes: Axes = Field((0, 1, 2), description="Axes (z, y, x) mirrored at random in training.")
    mirror_sides: bool = Field(
        False,
        description="Mirror the left-right axis, in training and at test time, also for tasks with classes that differ "
        "by side (`sides` of the card), as published recipes do.",
    )
    batch_dice: bool = Field(
        False, description="Dice of the loss over the whole batch instead of the mean over its samples."
    )

    @property
    def effective_momentum(self) -> float:
        """Momentum of SGD, its default filled in."""
        return 0.99 if self.momentum is None else self.momentum

    @property
    def effective_betas(self) -> tuple[float, float]:
        """Decay rates of Adam and AdamW, their default filled in."""
        return self.betas or (0.9, 0.999)

    @property
    def effective_epsilon(self) -> float:
        """Constant in the denominator of Adam and AdamW, its default filled in."""
        return self.epsilon or 1e-8

    @property
    def effective_poly_exponent(self) -> float:
        """Exponent of the polynomial decay, its default filled in."""
        return 0.9 if self.poly_exponent is None else self.poly_exponent

    def warmup_steps(self, total: int) -> int:
        """Return the steps of warm-up in a run of `total` steps; a fraction is rounded down."""
        return self.warmup if isinstance(self.warmup, int) else int(self.warmup * total)

    def effective(self) -> dict[str, Any]:
        """Return all that acts in a training, as plain values: defaults filled in, keys without an effect left out."""
        values = self.model_dump(mode="json") | {
            "momentum": self.effective_momentum,
            "betas": list(self.effective_betas),
            "epsilon": self.effective_epsilon,
            "poly_exponent": self.effective_poly_exponent,
        }
        return {
            name: value
            for name, value in values.items()
            if name not in ONLY_WITH or getattr(self, ONLY_WITH[name][0]) in ONLY_WITH[name][1]
        }


class Tuning(Section):
    """How entries with the recipe `tuned` choose their learning rate: a short trial each, scored on training patients.

    The patients of the validation fraction are held out in the trials alone; the training that follows sees all.
    """

    learning_rates: Rates = Field(
        min_length=2, description="Values of `initial_learning_rate` that are tried; of equally good ones the smallest."
    )
    iterations_per_task: int = Field(ge=1, description="Optimiser steps per task of a trial.")
    validation_fraction: float = Field(
        0.2, gt=0, le=0.5, description="Fraction of each task's training patients that score the trials; at least one."
    )


class Training(Recipe):
    """The training recipe of all models that name no other one, and the budget of every model."""

    iterations_per_task: int = Field(50000, ge=1, description="Optimiser steps per task: the compute budget.")
    precision: Precision = Field(
        "auto",
        description="Arithmetic of the forward pass. auto: bfloat16 where the device multiplies it itself, else "
        "float16 on a GPU and float32 on a processor.",
    )
    mode: Literal["auto", "exact", "fast"] = Field(
        "auto",
        description="exact: the same bytes on one machine, interrupted or not; fast: no such promise. auto: exact on a "
        "processor, fast on a GPU (docs/performance.md).",
    )
    save_every_seconds: float = Field(120.0, gt=0, description="Interval between resumable states.")
    time_limit_hours: float | None = Field(
        None, gt=0, description="A job that has trained for longer is saved and recorded as failed; null: no limit."
    )
    validation_fraction: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Fraction of the training patients of each task, at least one, that no method of the experiment "
        "learns from, so that learning curves show their Dice, beside that of as many others at the end; never used to "
        "choose anything. 0: none.",
    )
    validation_points: int = Field(
        10, ge=1, description="How often that Dice is measured, at evenly spaced steps of which the last is the end."
    )
    tuning: Tuning | None = Field(None, description=Tuning.__doc__)

    def effective(self) -> dict[str, Any]:
        """Return all that acts in a training: no keys of validation without its cases, no rate beside a grid."""
        without_effect = {"tuning" if self.tuning is None else "initial_learning_rate"}
        if not self.validation_fraction:
            without_effect.update(VALIDATION)
        return {name: value for name, value in super().effective().items() if name not in without_effect}

    def at_rate(self, learning_rate: float) -> Training:
        """Return these settings with a learning rate that is not looked for any more."""
        return self.model_copy(update={"initial_learning_rate": learning_rate, "tuning": None})

    def trial(self, learning_rate: float) -> Training:
        """Return the settings of a trial: one rate of the grid, fewer steps, and the Dice of held-out cases at the end.

        What the trial holds out is more than what the training does.
        """
        assert self.tuning is not None, "only a tuned training has trials"
        changes = {
            "iterations_per_task": self.tuning.iterations_per_task,
            "validation_fraction": self.tuning.validation_fraction,
            "validation_points": 1,
        }
        return self.at_rate(learning_rate).model_copy(update=changes)


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of layers, the last one first.

    A layer that names another optimiser, or another schedule of the learning rate, drops what earlier layers said of
    the former one alone, such as its momentum.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        for key, (chooser, known_to) in ONLY_WITH.items():
            if chooser in layer and layer[chooser] not in known_to:
                values.pop(key, None)
        values |= layer
    return values


def recipe_text(recipe: Recipe) -> str:
    """Return what moves the weights in words, such as 'adamw, initial_learning_rate 0.0001, ...'; defaults included."""
    acting = recipe.effective()
    named = (
        *("initial_learning_rate", "momentum", "betas", "epsilon", "weight_decay", "poly_exponent", "warmup"),
        *("gradient_clip", "drop_path", "ema_decay", "batch_size"),
    )
    words = [acting["optimiser"], acting["learning_rate_schedule"]]
    if isinstance(recipe, Training) and recipe.tuning is not None:
        words.append(_tuning_text(recipe.tuning))
    return ", ".join(words + [f"{name} {acting[name]}" for name in named if acting.get(name) not in (None, 0)])


def _tuning_text(tuning: Tuning) -> str:
    rates = ", ".join(map(str, tuning.learning_rates))
    return (
        f"initial_learning_rate tuned over {len(tuning.learning_rates)} values ({rates}; trials of "
        f"{tuning.iterations_per_task:,} steps per task, scored on {100 * tuning.validation_fraction:g} % of the "
        "training patients and charged)"
    )


def recipe_problems(key: str, recipe: Recipe) -> Iterator[Problem]:
    """Yield the keys of a recipe that its optimiser or schedule does not know."""
    for name, (chooser, known_to) in ONLY_WITH.items():
        value, chosen = getattr(recipe, name), getattr(recipe, chooser)
        if value is not None and chosen not in known_to:
            found = f"{_shown(value)} with {chooser} {chosen}"
            fix = f"remove it, or set {chooser} to {known_to[0]}"
            yield Problem(f"{key}.{name}", found, f"{name} only with {' or '.join(known_to)}", fix)


def warmup_problems(key: str, recipe: Recipe, total: int, *, what: str = "run") -> Iterator[Problem]:
    """Yield a warm-up that leaves no step of a run, or of what else is named, of `total` steps."""
    steps = recipe.warmup_steps(total)
    if steps >= total:
        found = f"{steps} steps of warm-up in a {what} of {total}"
        yield Problem(f"{key}.warmup", found, f"a warm-up shorter than the {what}", "shorten it, or train for longer")


def _shown(value: Any) -> str:
    return str(list(value) if isinstance(value, tuple) else value)
