"""Cards of models, data sets and layouts of weights: literals read from the source file without importing it.

A card is the one home of its facts: channels, classes, licence, citation. It is checked against one schema. Names are
file names; an unknown key or a wrong type is a problem with a suggestion. A user's own data-set cards are YAML or JSON
files of the same shape.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from segbench.core.code import ROOT
from segbench.core.errors import Problem, input_error, raise_problems, suggestion
from segbench.core.names import named_alike
from segbench.core.schema import as_problem, problem_of_value
from segbench.core.task import MODALITIES, Channel, Structure, Task
from segbench.core.yaml_keys import UniqueKeyLoader

MODEL_FOLDER = ROOT / "models" / "baselines"
UNISEG_FILE = ROOT / "models" / "uniseg" / "__init__.py"
OBJECTIVE_FOLDER = ROOT / "segbench" / "training" / "self_supervised"
DATASET_FOLDER = ROOT / "segbench" / "data" / "sources"
CONTROL_FOLDER = ROOT / "models" / "controls"
FORMAT_FOLDER = ROOT / "models" / "weights" / "formats"
WHOLE_NUMBER = re.compile("[0-9]{1,9}")
CARD_FILE = "a Python file with a CARD"
OWN_AXES = "zyx"
"""Order of the spatial axes of images here."""
AxisOrder = Literal["zyx", "zxy", "yzx", "yxz", "xzy", "xyz"]
TrainedOn = dict[str, list[str] | Literal["all", "unknown"]] | Literal["unknown"]
Title = Annotated[str, Field(pattern=r"\S")]
OPTION_LIMITS = {"at_least": operator.ge, "at_most": operator.le, "below": operator.lt}
"""What a card may demand of an option that is a number."""
OPTION_KEYS = frozenset({"default", "help", "label", "labels", "always_named", *OPTION_LIMITS})
"""What a card says of an option of a network; `models.titles` explains `label`, `labels` and `always_named`."""
ANY_MODEL, SHARED_BACKBONE = "any", "shared"  # targets of a format beside the names of models


class _Schema(BaseModel):
    """Base of every part of a card; `page` explains its keys."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    page: ClassVar[str] = "docs/add_a_baseline.md"


class _Channel(_Schema):
    name: str
    modality: Literal[MODALITIES]  # type: ignore[valid-type]


class _Structure(_Schema):
    name: str
    labels: list[int] = Field(min_length=1)
    tolerance_mm: float = Field(gt=0)
    lesion: bool = False


class _Permits(_Schema):
    commercial: bool
    show_images: bool


class _Download(_Schema):
    """An archive that anyone may download.

    unpacks_to: path below the data root that the archive's top folder becomes; its last part is that folder's name.
    checksum: algorithm and hexadecimal digest, absent where the owners publish none.
    """

    url: str = Field(pattern=r"^https://\S+\.(tar|tar\.gz|tgz|zip)$")
    unpacks_to: str = Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$")
    checksum: str | None = Field(default=None, pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")


class DatasetCard(_Schema):
    """Schema of a data-set card; a key `"1-28"` of `merge` stands for every value of the range.

    tumours: class value of each tumour or lesion -> class value of the organ that counts it as its own, or null.
    sides: pairs of names of classes that differ by their side of the body alone.
    """

    page: ClassVar[str] = "docs/add_a_dataset.md"
    title: Title
    layout: Literal["msd", "nnunet_raw", "table", "custom"]
    folder: str
    channels: list[_Channel] = Field(min_length=1)
    classes: dict[str, str] = Field(min_length=1)
    merge: dict[int, int] = Field(default_factory=dict)
    ignore_labels: list[int] = Field(default_factory=list)
    structures: list[_Structure] = Field(min_length=1)
    tumours: dict[int, int | None] = Field(default_factory=dict)
    sides: list[tuple[str, str]] = Field(default_factory=list)
    preprocessing: str
    expected_cases: dict[str, int] = Field(default_factory=dict)
    patient_namespace: str
    patient_pattern: str | None = None
    spacing_is_nominal: bool = False
    synthetic: bool = False
    licence: str
    permits: _Permits
    citation: str
    url: str
    obtain: str
    downloads: list[_Download] = Field(default_factory=list)

    @field_validator("classes", mode="before")
    @classmethod
    def _values_before_names(cls, classes: object) -> object:
        """Take a value that YAML reads as a number for its word, and refuse names before values."""
        if not isinstance(classes, dict):
            return classes
        if any(isinstance(name, int) for name in classes.values()):
            raise problem_of_value(repr(classes), "value: name", 'write {"1": liver, "2": tumour}')
        return {str(value) if type(value) is int else value: name for value, name in classes.items()}

    @field_validator("merge", mode="before")
    @classmethod
    def _ranges(cls, merge: object) -> object:
        if not isinstance(merge, dict):
            return merge
        expanded: dict[int, object] = {}
        for key, target in merge.items():
            first, _, last = str(key).partition("-")
            if not all(WHOLE_NUMBER.fullmatch(end) for end in (first, last or first)):
                raise problem_of_value(repr(key), "a label value, or a range of them", 'write 3: 2, or "1-28": 1')
            expanded |= dict.fromkeys(range(int(first), int(last or first) + 1), target)
        return expanded


class _PublishedRecipe(_Schema):
    """How a method is trained by its authors, as far as it was read in `source`.

    keys: recipe keys of `training` (docs/recipes.md); a fact that is not known is absent, and none where the optimiser
    is not offered here. not_taken: what the source does beside them and segbench does not. as: the model whose card
    states what this one leaves out; `keys` are then added to that card's.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, serialize_by_alias=True)
    same_as: str | None = Field(None, alias="as")
    source: str | None = None
    keys: dict[str, Any] | None = None
    not_taken: list[str] | None = None


class _OriginalNetwork(_Schema):
    patch_size_zyx: list[int]
    base_features: int
    max_features: int
    pool_kernels_zyx: list[list[int]]
    conv_kernels_zyx: list[list[int]]


class _OriginalTraining(_Schema):
    """Size of the network, as `network` of a config states it, and steps per task of the authors' training."""

    source: str
    network: _OriginalNetwork
    steps_per_task: int


def _checked_options(options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for name, option in options.items():
        if not isinstance(option.get("default"), (bool, int, float, str)) or not isinstance(option.get("help"), str):
            expected = "a default that is a number, a text, True or False, and a help"
            raise problem_of_value(f"{name}: {option}", expected, 'write {"default": value, "help": "what it does"}')
        for key in option.keys() - OPTION_KEYS:
            raise problem_of_value(f"{name}: {key}", "a key of an option", suggestion(key, OPTION_KEYS))
    return options


Options = Annotated[dict[str, dict[str, Any]], AfterValidator(_checked_options)]


class _MethodCard(_Schema):
    title: Title
    citation: str
    url: str
    licence: str
    fidelity: Literal["numerical", "description", "concept"]
    deviations: list[str]
    options: Options
    encoder_keys: list[str]
    published_recipe: _PublishedRecipe | None = None
    original_training: _OriginalTraining | None = None


class ModelCard(_MethodCard):
    """Schema of a model card."""

    original_licence: str
    kind: Literal["universal", "single_task"]
    channels: Annotated[list[PositiveInt], Field(min_length=1)] | Literal["any"]
    max_classes: int | None = None
    patch_multiple: Annotated[list[PositiveInt], Field(min_length=3, max_length=3)] | Literal["spec"]
    backbone: Literal["shared", "own"]


class ControlCard(_Schema):
    """Schema of the card of a control: its title and what it predicts; the rest is the same for all controls."""

    title: str
    predicts: str
    kind: Literal["control"] = "control"
    fidelity: Literal["control"] = "control"
    citation: str = "segbench"
    url: str = ""
    licence: str = "Apache-2.0"
    original_licence: str = ""
    channels: Literal["any"] = "any"
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)


class _CtIntensities(_Schema):
    """CT window in HU that weights were trained on, and the values that its ends became."""

    window_hu: tuple[float, float]
    scaled_to: tuple[float, float]


class FormatCard(_Schema):
    """Schema of the card of a layout in which weights are released.

    targets: model, `shared` (every model on the shared backbone) or `any` -> beginnings of the names of its tensors
    that are loaded, none for the `encoder_keys` of its card. strict: each of these must be in the file, in its shape,
    except `stems`, whose input channels may differ: then they are `repeated` from a single channel, or start `new`.
    trained_on: data-set card -> its case ids, `all` or `unknown`, or `unknown` for everything. other_data: data without
    a card here, in words. axes: order of the spatial axes of the images that the weights saw. intensities: a window of
    CT, or `z-score`, which stays as the recipe has it. images_source: where axes, intensities and spacing of these
    images were read; empty for weights whose source the user knows.
    """

    page: ClassVar[str] = "docs/pretrained_weights.md"
    title: str
    citation: str
    url: str
    licence: str
    obtain: str
    layout: str
    loaded: str
    left_out: str
    targets: dict[str, list[str]] = Field(min_length=1)
    strict: bool
    stems: dict[str, Literal["repeated", "new"]]
    minimum_fraction: float = Field(ge=0, le=1)
    trained_on: TrainedOn
    other_data: str
    axes: AxisOrder | Literal["unknown"]
    intensities: _CtIntensities | Literal["z-score", "unknown"]
    images_source: str


class ObjectiveCard(_MethodCard):
    """Schema of the card of a self-supervised objective; `does` says step by step what is trained."""

    does: list[str] = Field(min_length=1)


def read_card(path: Path) -> dict:
    """Return the literal assigned to CARD in a Python file, without importing it.

    Raises:
        InputError: the file cannot be parsed, has no CARD, or its value is not a literal.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise input_error(path, found=f"{error}", expected=CARD_FILE, fix="fix the file") from error
    return _literal(path, state.st_mtime_ns, state.st_size)


@cache
def _literal(path: Path, mtime_ns: int, size: int) -> dict:
    """Return the card of a file in one state; a process that checks many configs parses each file once."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise input_error(path, found=f"{error}", expected=CARD_FILE, fix="fix the file") from error
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", None) == "CARD" for target in node.targets):
            try:
                return ast.literal_eval(node.value)
            except ValueError as error:
                raise input_error(
                    path, found="a CARD that computes", expected="a literal", fix="write it out"
                ) from error
    raise input_error(path, found="no CARD", expected="CARD = {...}", fix="add the card, see docs/")


def checked(card: object, schema: type[_Schema], where: str) -> dict:
    """Return a card with defaults filled in.

    Raises:
        InputError: with one problem for every departure from the schema.
    """
    if not isinstance(card, dict):
        raise input_error(where, found=type(card).__name__, expected="a mapping of keys", fix=f"see {schema.page}")
    try:
        return schema.model_validate(card).model_dump()
    except ValidationError as error:
        problems = (as_problem("", item, schema, page=schema.page) for item in error.errors())
        raise_problems(replace(item, where=f"{where}: {item.where}" if item.where else where) for item in problems)
        raise AssertionError("unreachable") from error


def _modules(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"}


def _cards_of(paths: Mapping[str, Path], schema: type[_Schema]) -> dict[str, dict]:
    return {name: checked(read_card(path), schema, str(path.relative_to(ROOT))) for name, path in paths.items()}


def dataset_cards(extra_folders: Sequence[Path] = ()) -> dict[str, dict]:
    """Return name -> card of every data set, the user's folders included.

    Raises:
        InputError: a folder is absent, a card departs from the schema, or two names differ in nothing but upper and
            lower case, because they would be one folder on some file systems.
    """
    cards = _cards_of(_modules(DATASET_FOLDER), DatasetCard)
    for folder in extra_folders:
        if not folder.is_dir():
            raise input_error(folder, found="no folder", expected="a folder with cards", fix="fix data.cards")
        for path in sorted(item for item in folder.iterdir() if item.suffix in (".yaml", ".yml", ".json")):
            same = next((name for name in cards if name.casefold() == path.stem.casefold()), None)
            if same is not None:
                raise input_error(path, found=f"the name {same} again", expected="a new name", fix="rename the card")
            cards[path.stem] = checked(_read_text_card(path), DatasetCard, str(path))
    return cards


def _read_text_card(path: Path) -> object:
    try:
        loader = UniqueKeyLoader(path.read_text(encoding="utf-8"), where=str(path), numbers=True)
        content = loader.get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise input_error(path, found=f"not YAML ({error})", expected="a card", fix="fix the syntax") from error
    raise_problems(loader.problems)
    return content


def model_cards() -> dict[str, dict]:
    """Return name -> card of every model, controls included.

    Raises:
        InputError: a card departs from the schema, or a file has the name of a control, or of UniSeg's folder.
    """
    paths, controls = _modules(MODEL_FOLDER), _cards_of(_modules(CONTROL_FOLDER), ControlCard)
    for name in paths.keys() & {*controls, UNISEG_FILE.parent.name}:
        taken = "a control" if name in controls else UNISEG_FILE.parent.relative_to(ROOT)
        raise input_error(
            paths[name].relative_to(ROOT), found=f"the name of {taken}", expected="a new name", fix="rename the file"
        )
    if UNISEG_FILE.exists():
        paths["uniseg"] = UNISEG_FILE
    networks = _with_whole_recipes(_cards_of(paths, ModelCard))
    return networks | controls


def _with_whole_recipes(methods: dict[str, dict]) -> dict[str, dict]:
    return {name: card | {"published_recipe": _whole_recipe(name, methods)} for name, card in methods.items()}


def _whole_recipe(name: str, methods: Mapping[str, dict]) -> dict[str, Any] | None:
    """Return the published recipe of a model with what it takes from another model's card; raises `InputError`."""
    recipe = methods[name]["published_recipe"]
    if recipe is None:
        return None
    own = {key: value for key, value in recipe.items() if key != "as" and value is not None}
    if recipe["as"] is None:
        if not {"source", "keys"} <= own.keys():
            raise input_error(
                f"card {name}",
                found="a published recipe without source or keys",
                expected="both",
                fix="state them, or name the model that has the same recipe under `as`",
            )
        return {"not_taken": []} | own
    other = methods.get(recipe["as"], {}).get("published_recipe")
    if other is None or other["as"] is not None:
        raise input_error(
            f"card {name}, published_recipe.as",
            found=repr(recipe["as"]),
            expected="a model whose card states a recipe itself",
            fix=suggestion(recipe["as"], methods),
        )
    base = {key: value for key, value in other.items() if key != "as"}
    return base | {"not_taken": base["not_taken"] or []} | own | {"keys": base["keys"] | own.get("keys", {})}


def format_cards() -> dict[str, dict]:
    """Return name -> card of every layout of weights."""
    return _cards_of(_modules(FORMAT_FOLDER), FormatCard)


def loaded_prefixes(format_card: dict, model: str, model_card: dict) -> list[str] | None:
    """Return the beginnings of the names of a model's tensors that a format fills, or None when it fits another one."""
    keys = [model, *([SHARED_BACKBONE] if model_card["backbone"] == "shared" else []), ANY_MODEL]
    found = next((key for key in keys if key in format_card["targets"]), None)
    return None if found is None else format_card["targets"][found] or model_card["encoder_keys"]


def target_names(format_card: dict) -> list[str]:
    """Return the networks that a format fits, in words."""
    words = {SHARED_BACKBONE: "a network on the shared backbone", ANY_MODEL: "any network"}
    return [words.get(name, name) for name in format_card["targets"]]


def _meaning_problems(name: str, card: dict) -> Iterator[Problem]:
    """Yield what the schema cannot see: a pattern without its one group, names that are there twice."""
    pattern = card.get("patient_pattern")
    if pattern is not None:
        yield from pattern_problems(f"card {name}, patient_pattern", pattern)
    yield from _class_problems(name, card["classes"])
    named = set(_class_values(card)) | {0} | set(card.get("merge", {}))
    for value in card.get("ignore_labels", ()):
        if value in named:
            yield Problem(f"card {name}", f"ignore_labels {value}", "no background, class or merged value", "fix it")
    classes = list(card["classes"].values())
    sided = [item for pair in card.get("sides", ()) for item in pair]
    for item in sided:
        if item not in classes:
            yield Problem(f"card {name}, sides", f"{item!r}", "a name of a class", suggestion(item, classes))
        elif sided.count(item) > 1:
            yield Problem(f"card {name}, sides", f"{item!r} twice", "each class in one pair", "fix the pairs")
    structures = [structure["name"] for structure in card["structures"]]
    for twice in sorted({item for item in structures if structures.count(item) > 1}):
        yield Problem(f"card {name}", f"the structure {twice!r} twice", "each once", "rename one")
    for group in named_alike(sorted(structures)):
        found = f"the structures {' and '.join(map(repr, group))}"
        yield Problem(f"card {name}", found, "names that differ in more than case and blanks", "rename one")


def pattern_problems(where: str, pattern: str, *, needs_group: bool = True) -> Iterator[Problem]:
    """Yield why a pattern is no regular expression with one group, or with none where it needs no group."""
    try:
        groups = re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError) as error:
        yield Problem(where, f"{pattern!r} ({error})", "a regular expression", "fix it")
        return
    if groups > 1 or (needs_group and groups < 1):
        yield Problem(where, f"{groups} groups", "one, the patient id", "use (?:...)")


def _class_problems(name: str, classes: Mapping[str, str]) -> Iterator[Problem]:
    """Yield values that are no numbers, or are written with zeros before the number, and names that come twice."""
    words = [value for value in classes if not WHOLE_NUMBER.fullmatch(value)]
    if words:
        yield Problem(f"card {name}", f"class values {words}", "whole numbers", "write value: name")
    for value in classes:
        if WHOLE_NUMBER.fullmatch(value) and value != str(int(value)):
            expected = "a number without zeros before it"
            yield Problem(f"card {name}", f"the class value {value!r}", expected, f"write {int(value)}")
    names = list(classes.values())
    for twice in sorted({item for item in names if names.count(item) > 1}):
        yield Problem(f"card {name}", f"the class {twice!r} twice", "each once", "rename one, or join them by `merge`")


def _class_values(card: dict) -> list[int]:
    return sorted(int(value) for value in card["classes"] if WHOLE_NUMBER.fullmatch(value))


def objective_cards() -> dict[str, dict]:
    """Return name -> card of every self-supervised objective."""
    return _with_whole_recipes(_cards_of(_modules(OBJECTIVE_FOLDER), ObjectiveCard))


def code_of(name: str, *, objective: bool) -> str:
    """Return the file or folder that is a model's, or an objective's, alone; relative to the repository's root."""
    if not objective and name == UNISEG_FILE.parent.name:
        return str(UNISEG_FILE.parent.relative_to(ROOT))
    return str((OBJECTIVE_FOLDER if objective else MODEL_FOLDER).relative_to(ROOT) / f"{name}.py")


def label_facts(card: dict) -> dict[str, Any]:
    """Return what of a data-set card decides how stored label values become classes."""
    return {"merge": card.get("merge", {}), "ignore_labels": list(card.get("ignore_labels", ()))}


def task_from_card(name: str, card: dict) -> Task:
    """Return the task of a data-set card.

    Raises:
        InputError: class values are not 1, 2, ..., two classes have one name, a structure uses another value or comes
            twice, or the pattern of patients is no regular expression with one group.
    """
    problems = list(_meaning_problems(name, card))
    values = _class_values(card)
    if values != list(range(1, len(values) + 1)):
        fix = "leave 0, the background, out" if 0 in values else "use `merge`"
        problems.append(Problem(f"card {name}", f"class values {values}", "1, 2, ... without gaps", fix))
    for structure in card["structures"]:
        unknown = [value for value in structure["labels"] if value not in values]
        if unknown:
            where = f"card {name}, structure {structure['name']}"
            problems.append(Problem(where, f"labels {unknown}", f"values of {values}", "fix the structure"))
    tumours = {int(tumour): organ for tumour, organ in card.get("tumours", {}).items()}
    unknown = sorted({*tumours, *(organ for organ in tumours.values() if organ is not None)} - set(values))
    if unknown or any(organ == tumour for tumour, organ in tumours.items()):
        expected = f"tumours and their organs, different values of {values}"
        problems.append(Problem(f"card {name}, tumours", f"{tumours}", expected, "fix the values"))
    raise_problems(problems)
    return Task(
        name=name,
        title=card["title"],
        channels=tuple(Channel(**channel) for channel in card["channels"]),
        classes=tuple(card["classes"][str(value)] for value in values),
        structures=tuple(Structure(**{**item, "labels": tuple(item["labels"])}) for item in card["structures"]),
        preprocessing=card["preprocessing"],
        spacing_is_nominal=card.get("spacing_is_nominal", False),
        synthetic=card.get("synthetic", False),
        tumours=tuple(tumours.items()),
        sides=_sides(card),
    )


def _sides(card: dict) -> tuple[tuple[int, int], ...]:
    values = {name: int(value) for value, name in card["classes"].items()}
    return tuple((values[one], values[other]) for one, other in card.get("sides", ()))


def supports(card: dict, task: Task) -> str | None:
    """Return why a model cannot serve a task, from its card alone, or None when it can."""
    if card["channels"] != "any" and task.num_channels not in card["channels"]:
        accepted = ", ".join(map(str, card["channels"]))
        return f"{card['title']} accepts {accepted} channel(s), the task has {task.num_channels}"
    limit = card.get("max_classes")
    if limit is not None and len(task.classes) > limit:
        return f"{card['title']} has {limit} foreground class(es), the task has {len(task.classes)}"
    return None


def patient_of(card: dict, case_id: str) -> str:
    """Return the patient id of a case: the one group of the card's pattern, or the whole case id."""
    pattern = card.get("patient_pattern")
    return (matched_patient(pattern, case_id) if pattern else None) or case_id


def matched_patient(pattern: str, case_id: str) -> str | None:
    """Return what the group of a pattern, or the whole pattern, finds in a case id; None where it finds nothing."""
    match = re.search(pattern, case_id)
    return (match.group(1 if match.re.groups else 0) or None) if match else None
