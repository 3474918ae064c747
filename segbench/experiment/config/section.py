"""What all sections share: their base class, the types of their values, and the form of a check."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from segbench.core.errors import Problem, suggestion
from segbench.core.names import named_alike
from segbench.core.paths import NAME_PATTERN
from segbench.core.schema import problem_of_value
from segbench.core.vocabulary import EQUAL, OWN

T = TypeVar("T", bound=Hashable)
Precision = Literal["auto", "float32", "bfloat16", "float16"]
LONGEST_NAME = 60
"""Most characters of a name that is a part of paths: three of them and a task are in the name of a folder."""


class Section(BaseModel):
    """Base of every section: unknown keys, infinite and undefined numbers are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_value_is_a_number(cls, content: Any) -> Any:
        """Hand over truth values as words where numbers are asked for: pydantic would take `yes` for 1."""
        if not isinstance(content, dict):
            return content
        numbers = _number_keys(cls)
        return {key: without_truth_values(value) if key in numbers else value for key, value in content.items()}


@cache
def _number_keys(section: type[Section]) -> frozenset[str]:
    return frozenset(key for key, field in section.model_fields.items() if _of_numbers(field.annotation))


def _of_numbers(annotation: Any) -> bool:
    return annotation in (int, float) or any(_of_numbers(inner) for inner in get_args(annotation))


def without_truth_values(value: Any) -> Any:
    """Return a value, or a list of them, in which truth values are the words `true` and `false`."""
    if isinstance(value, (list, tuple)):
        return [without_truth_values(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else value


class Check(NamedTuple):
    """A check of a config whose keys have the right types.

    reads: keys such as `data.folds` or `network`; the check runs when none of them is wrong by itself. find: yields
    problems, `where` being the key; it gets the section named by `section`, or the whole config when that is empty.
    """

    reads: tuple[str, ...]
    find: Callable[[Any], Iterable[Problem]]
    section: str = ""


def one_problem(expected: str) -> WrapValidator:
    """Return a validator that makes one problem of a wrong value, instead of one for each kind that it might have."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            raise problem_of_value(repr(value)[:120], expected, "write one of them") from error

    return WrapValidator(check)


def repeated(values: Iterable[T]) -> list[T]:
    """Return the values that come more than once, each once, in order."""
    seen: dict[T, int] = {}
    for value in values:
        seen[value] = seen.get(value, 0) + 1
    return [value for value, count in seen.items() if count > 1]


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    twice = repeated(values)
    if twice:
        raise problem_of_value(f"{', '.join(map(repr, twice))} twice", "each once", "remove one")
    return values


def _short_enough(name: str) -> str:
    if len(name) > LONGEST_NAME:
        found, expected = f"a name of {len(name)} characters", f"at most {LONGEST_NAME}, as part of paths"
        raise problem_of_value(found, expected, "write a shorter name")
    return name


def alike(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield pairs of different names that are one name to a score table, or on file systems that ignore letter case."""
    for first, *others in named_alike(names):
        yield from ((first, other) for other in others)


def unknown_names(key: str, names: Iterable[str], known: Iterable[str], expected: str) -> Iterator[Problem]:
    """Yield a problem with a suggestion for each name that is not known."""
    known = tuple(known)
    for name in names:
        if name not in known:
            yield Problem(key, repr(name), expected, suggestion(name, known))


def shown(values: Sequence[object], *, most: int = 5) -> str:
    """Return values in words, cut to the first few."""
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")


Distinct = (AfterValidator(_distinct), Field(json_schema_extra={"uniqueItems": True}))
Text = Annotated[str, StringConstraints(pattern=r"\S")]
Name = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$"), AfterValidator(_short_enough)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[int, Field(ge=0)]
Axis = Annotated[int, Field(ge=0, le=2)]
Triple = tuple[PositiveInt, PositiveInt, PositiveInt]
Texts = Annotated[tuple[Text, ...], *Distinct]
Axes = Annotated[tuple[Axis, ...], *Distinct]
Numbers = Annotated[tuple[Number, ...], *Distinct]


PREPROCESSING_RECIPE = "a named preprocessing recipe, or one of preprocessing_recipes"
"""What a key that names a preprocessing recipe may say."""
RecipeChoice = Annotated[
    Literal["equal", "published", "tuned"] | dict[str, Any],
    one_problem("equal, published, tuned, or a mapping of recipe keys"),
]


class ModelEntry(Section):
    """One model of the comparison: a registered name, options, a recipe, and an id when it is used twice."""

    name: Name = Field(description="File name of the model below models/, or of the objective, without .py.")
    id: Name | None = Field(None, description="Name in the score table; default: `name`.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the model's card.")
    recipe: RecipeChoice = Field(
        EQUAL,
        description="Training recipe (docs/recipes.md): `equal` for that of the experiment, `published` for that of "
        "the model's card, `tuned` for that of the experiment with a learning rate chosen as `training.tuning` says, "
        "or own values of recipe keys of `training`. Each recipe has tables of its own.",
    )

    @property
    def key(self) -> str:
        """The value of the column `model`."""
        return self.id or self.name

    @property
    def recipe_name(self) -> str:
        """The value of the column `recipe`."""
        return self.recipe if isinstance(self.recipe, str) else OWN


def as_entry(value: Any) -> Any:
    """Return a plain name as an entry that has this name and nothing else."""
    return {"name": value} if isinstance(value, str) else value


def _with_ceiling(names: tuple[str, ...]) -> tuple[str, ...]:
    return names if "oracle" in names else ("oracle", *names)


CONTROLS = (
    "Control predictors that bound the scale (docs/models.md); `oracle`, the ceiling that preprocessing sets, is "
    "always among them."
)
Controls = Annotated[Texts, AfterValidator(_with_ceiling)]
Model = Annotated[ModelEntry, BeforeValidator(as_entry, json_schema_input_type=Name | ModelEntry)]
