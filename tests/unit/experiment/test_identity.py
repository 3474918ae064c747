"""What changes a result's identity, and what must not: the lines of docs/reruns.md that config and code decide."""

import pytest

from segbench.core import code
from segbench.core.errors import InputError
from segbench.core.files import write_json
from segbench.core.paths import RunPaths
from segbench.evaluation.trained import evaluation_identity
from segbench.experiment.identity import Identity
from segbench.experiment.result_record import ResultRecord
from tests.unit import written_run as small
from tests.unit.written_run import DODNET, SCRATCH, SINGLE, SPLEEN, THRESHOLD, TRANSFER, UNISEG

PANCREAS, PROSTATE = "phantom_pancreas", "phantom_prostate"
FOLDED = {"data": {"protocol": "kfold", "fold_count": 2}}
NETWORKS = {UNISEG, SINGLE, DODNET, SCRATCH, TRANSFER}
EVERY = NETWORKS | {THRESHOLD}
NONE: set[str] = set()
SPLEEN_JOBS = {UNISEG, SINGLE, DODNET, THRESHOLD}
MODELS = small.CONTENT["upstream"]["models"]


BACKWARDS = {"train": ["b", "a"], "test": ["c", "d"]}
SHORT = {"train": ["a", "b"], "test": ["c"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with raw files, splits and preprocessed cases of two tasks more than it asks for, trained."""
    folder = tmp_path_factory.mktemp("identity")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        wide = settings({"upstream": {"tasks": [SPLEEN, small.LIVER, PANCREAS]}}, downstream=[PROSTATE])
        small.write_run(wide)
        sides = {task.name: small.SIDES for task in wide.tasks}
        other = {task.name: {"train": ["c", "d"], "test": ["a", "b"]} for task in wide.tasks}
        write_json(RunPaths("small").splits, small.splits_content({"0": sides, "1": other}))
        for name in NETWORKS:
            context = small.job(settings(), name)
            record = ResultRecord(context.identity, {}, {"weights.pt": (1, f"weights of {name}")})
            record.write(context.train_folder)
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    """The run's folder as the working directory."""
    monkeypatch.chdir(folder)
    return folder


def settings(changes=None, *, downstream=()):
    content = small.changed(FOLDED, changes or {})
    if downstream:
        content["downstream"] = {"tasks": [small.SCHWANNOMA, *downstream]}
    return small.config(**content)


def identities(config) -> dict[str, dict[str, str]]:
    """Return kind -> job -> digest of the jobs of the base config."""
    found: dict[str, dict[str, str]] = {"training": {}, "evaluation": {}, "prediction": {}, "scores": {}}
    for name in sorted(EVERY):
        context = small.job(config, name)
        if name in NETWORKS:
            found["training"][name] = context.identity.digest
        trained = {"status": "ok"} if name in NETWORKS else None
        found["evaluation"][name] = evaluation_identity(context, trained).digest
        task = context.tasks[context.tasks.names[0]]
        case = context.test_cases(task.name)[0]
        prediction = context.prediction_identity(task, case, "weights").digest
        found["prediction"][name] = prediction
        found["scores"][name] = context.score_identity(task, case, prediction).digest
    return found


def different(first, second) -> dict[str, set[str]]:
    return {
        kind: {name for name, digest in jobs.items() if second[kind][name] != digest} for kind, jobs in first.items()
    }


def with_card(config, task, **changes):
    """Return the config with changed keys of a data-set card."""
    card = config.dataset_cards[task] | changes
    config.__dict__["dataset_cards"] = config.dataset_cards | {task: card}
    for made_from_cards in ("_tasks", "_task_sets"):
        config.__dict__.pop(made_from_cards, None)
    return config


WIDER = [{"name": "organ", "labels": [1], "tolerance_mm": 5.0, "lesion": True}]
COARSER = [{"name": "spleen", "labels": [1], "tolerance_mm": 7.0, "lesion": False}]


@pytest.mark.parametrize(
    ("changes", "training", "evaluation", "prediction"),
    [
        pytest.param({"seeds": [0, 1]}, NONE, NONE, NONE, id="added seed"),
        pytest.param({"data": {"folds": [0, 1]}}, NONE, NONE, NONE, id="added fold"),
        pytest.param({"upstream": {"models": [*MODELS, "cond_decoder"]}}, NONE, NONE, NONE, id="added baseline"),
        pytest.param({"metrics": ["dice", "hd95"]}, NONE, EVERY, NONE, id="added metric"),
        pytest.param(
            {"upstream": {"tasks": [SPLEEN, small.LIVER, PANCREAS]}},
            {UNISEG, DODNET},
            {UNISEG, DODNET, THRESHOLD},
            {UNISEG, DODNET},
            id="added upstream task",
        ),
        pytest.param({"description": "other"}, NONE, NONE, NONE, id="changed description"),
        pytest.param({"missing_masks": {"dice": {"failed": 0.0}}}, NONE, NONE, NONE, id="missing masks"),
        pytest.param({"data": {"accept_leaks": ["x"], "accept_partial": [SPLEEN]}}, NONE, NONE, NONE, id="accept"),
        pytest.param({"data": {"root": "elsewhere"}}, NONE, NONE, NONE, id="moved data root"),
        pytest.param({"data": {"split_seed": 7, "test_fraction": 0.3}}, NONE, NONE, NONE, id="equal splits"),
        pytest.param({"training": {"save_every_seconds": 5.0}}, NONE, NONE, NONE, id="saved less often"),
        pytest.param({"training": {"time_limit_hours": 5.0}}, NONE, NONE, NONE, id="time limit"),
        pytest.param({"inference": {"keep_predictions": False}}, NONE, NONE, NONE, id="kept predictions"),
        pytest.param({"allow_mixed_training_code": True}, NONE, NONE, NONE, id="mixed code allowed"),
        pytest.param({"structures": {SPLEEN: COARSER}}, NONE, SPLEEN_JOBS, NONE, id="changed tolerance"),
        pytest.param({"structures": {SPLEEN: WIDER}}, NONE, SPLEEN_JOBS, NONE, id="changed structure"),
        pytest.param({"training": {"iterations_per_task": 5}}, NETWORKS, NONE, NONE, id="longer training"),
        pytest.param({"downstream": {"training": {"batch_size": 3}}}, {SCRATCH, TRANSFER}, NONE, NONE, id="downstream"),
        pytest.param({"network": {"base_features": 6}}, NETWORKS, NONE, NONE, id="wider networks"),
        pytest.param({"inference": {"step": 0.5}}, NONE, NETWORKS, NETWORKS, id="smaller step"),
        pytest.param(
            {"upstream": {"models": [{"name": "uniseg", "options": {"position": 1}}, *MODELS[1:]]}},
            {UNISEG},
            NONE,
            NONE,
            id="changed option",
        ),
        pytest.param(
            {"downstream": {"initialisations": ["scratch", {"name": "uniseg", "minimum_fraction": 0.1}]}},
            {TRANSFER},
            NONE,
            NONE,
            id="other initialisation",
        ),
    ],
)
def test_what_a_key_of_the_config_changes(here, changes, training, evaluation, prediction):
    found = different(identities(settings()), identities(settings(changes)))
    assert (found["training"], found["evaluation"], found["prediction"]) == (training, evaluation, prediction)
    own_case = evaluation - {THRESHOLD} if training == {UNISEG, DODNET} else evaluation
    assert found["scores"] == own_case, "an added task leaves the scores of the others' cases to a control"


def test_an_added_downstream_task_changes_no_other_job(here):
    found = different(identities(settings()), identities(settings(downstream=[PROSTATE])))
    assert not any(found.values())


@pytest.mark.parametrize(
    ("changes", "training", "evaluation", "scores"),
    [
        ({"title": "Other", "citation": "Other", "licence": "Other", "obtain": "Other"}, NONE, NONE, NONE),
        ({"spacing_is_nominal": True}, NONE, SPLEEN_JOBS, SPLEEN_JOBS),
        ({"merge": {2: 1}}, NONE, SPLEEN_JOBS, SPLEEN_JOBS),  # training follows by the content addresses
        ({"classes": {"1": "organ"}}, {UNISEG, SINGLE, DODNET}, SPLEEN_JOBS, SPLEEN_JOBS),
        ({"channels": [{"name": "CT2", "modality": "CT"}]}, {UNISEG, SINGLE, DODNET}, SPLEEN_JOBS, SPLEEN_JOBS),
    ],
)
def test_what_a_key_of_a_card_changes(here, changes, training, evaluation, scores):
    found = different(identities(settings()), identities(with_card(settings(), SPLEEN, **changes)))
    assert (found["training"], found["evaluation"], found["scores"]) == (training, evaluation, scores)


@pytest.mark.parametrize(
    ("file", "training", "evaluation", "prediction"),
    [
        ("segbench/training/loop.py", NETWORKS, NONE, NONE),
        ("segbench/data/sampling.py", NETWORKS, NONE, NONE),
        ("models/backbone.py", NETWORKS - {DODNET}, NETWORKS - {DODNET}, NETWORKS - {DODNET}),
        ("models/uniseg/__init__.py", {UNISEG}, {UNISEG}, {UNISEG}),
        ("models/baselines/dodnet_original.py", {DODNET}, {DODNET}, {DODNET}),
        ("models/baselines/cond_decoder.py", NONE, NONE, NONE),
        ("segbench/training/initialise.py", {TRANSFER}, NONE, NONE),
        ("segbench/training/objective.py", NONE, NONE, NONE),
        ("segbench/inference/sliding_window.py", NONE, NETWORKS, NETWORKS),
        ("models/controls/threshold.py", NONE, {THRESHOLD}, {THRESHOLD}),
        ("models/controls/mean_shape.py", NONE, NONE, NONE),
        ("segbench/metrics/score.py", NONE, EVERY, NONE),
        ("segbench/data/readers.py", NONE, EVERY, NONE),
        ("segbench/evaluation/evaluate.py", NONE, NONE, NONE),
        ("segbench/evaluation/record.py", NONE, NONE, NONE),
        ("segbench/experiment/jobs.py", NONE, NONE, NONE),
        ("segbench/reporting/page.py", NONE, NONE, NONE),
        ("segbench/cli/train.py", NONE, NONE, NONE),
    ],
)
def test_what_an_edit_of_code_changes(here, monkeypatch, file, training, evaluation, prediction):
    before = identities(settings())
    meaning = code._meaning
    assert (code.ROOT / file).is_file()
    monkeypatch.setattr(code, "_meaning", lambda path: meaning(path) + ("edited" if path == file else ""))
    code._digest_of.cache_clear()
    try:
        found = different(before, identities(settings()))
    finally:
        code._digest_of.cache_clear()
    assert (found["training"], found["evaluation"], found["prediction"]) == (training, evaluation, prediction)


def test_a_changed_image_changes_what_it_is_part_of(here):
    config = settings()
    before = identities(config)
    splits, manifest = RunPaths("small").splits, RunPaths("small").manifest(SPLEEN)
    index = RunPaths("small").preprocessed(SPLEEN)
    kept = {path: path.read_bytes() for path in (splits, manifest, index)}
    try:
        cases = small.write_cases(config, SPLEEN, brightness=200.0)
        small.write_manifest(manifest, cases)
        small.preprocess(config, SPLEEN, cases)
        found = different(before, identities(settings()))
        assert found["training"] == {UNISEG, SINGLE, DODNET}
        assert found["evaluation"] == found["prediction"] == SPLEEN_JOBS
        small.write_manifest(manifest, small.write_cases(config, SPLEEN))
        small.preprocess(config, SPLEEN, small.write_cases(config, SPLEEN))
        assert not any(different(before, identities(settings())).values()), "a repaired file is the former one"
    finally:
        for path, content in kept.items():
            path.write_bytes(content)


def test_other_sides_and_another_order_change_training(here):
    before = identities(settings())
    path = RunPaths("small").splits
    kept = path.read_bytes()
    tasks = [task.name for task in settings().tasks]
    try:
        write_json(path, small.splits_content({"0": dict.fromkeys(tasks, BACKWARDS)}))
        found = different(before, identities(settings()))
        assert found["training"] == NETWORKS
        write_json(path, small.splits_content({"0": dict.fromkeys(tasks, SHORT)}))
        found = different(before, identities(settings()))
        assert (found["training"], found["evaluation"]) == (NONE, EVERY)
    finally:
        path.write_bytes(kept)


def test_another_source_changes_what_starts_from_it(here):
    before = identities(settings())
    source = small.job(settings(), UNISEG)
    kept = (source.train_folder / "record.json").read_bytes()
    try:
        other = Identity(source.identity.parts | {"training": "other"})
        ResultRecord(other, {}, {"weights.pt": (1, "other weights")}).write(source.train_folder)
        found = different(before, identities(settings()))
        assert found["training"] == {TRANSFER}
        assert found["evaluation"] == {UNISEG}
    finally:
        (source.train_folder / "record.json").write_bytes(kept)


def test_a_file_of_weights_and_a_file_of_an_option_count_by_content(here):
    start = {"name": "given", "file": "given.pt"}
    model = {"name": "clip_driven", "options": {"embeddings": "vectors.npz"}}
    changes = {"downstream": {"initialisations": [start]}, "upstream": {"models": [model, *MODELS]}}
    names = [f"downstream.single_task.given.{small.SCHWANNOMA}.f0.s0", "upstream.clip_driven.random.joint.f0.s0"]

    def digests():
        return [small.job(settings(changes), name).identity.digest for name in names]

    (here / "given.pt").write_text("a")
    (here / "vectors.npz").write_text("a")
    before = digests()
    (here / "given.pt").write_text("b")
    (here / "vectors.npz").write_text("b")
    assert not set(before) & set(digests())


def test_a_moved_run_folder_changes_nothing(here, tmp_path, monkeypatch):
    before = identities(settings())
    (tmp_path / "results").symlink_to(here / "results")
    monkeypatch.chdir(tmp_path)
    assert identities(settings()) == before


def test_differences_are_named_and_training_code_may_be_left_out():
    first = Identity({"model": "a", "training code": "b", "scoring code": "c"})
    second = Identity({"model": "a", "training code": "x", "scoring code": "y", "network": "z"})
    assert first.differences(second) == ["network", "scoring code", "training code"]
    assert first.differences(second, code_counts=False) == ["network", "scoring code"]
    assert first.differences(first) == []
    assert first.digest != second.digest


@pytest.mark.parametrize(
    "content",
    [{}, {"parts": {"a": "b"}}, {"parts": ["a"], "digest": "x"}, {"parts": {"a": "b"}, "digest": "0" * 16}, None],
)
def test_an_edited_identity_is_refused(content):
    with pytest.raises(InputError, match=r"record\.json: found .*expected an identity as segbench wrote it"):
        Identity.from_dict(content, "record.json")
    kept = Identity({"a": "b"})
    assert Identity.from_dict(kept.to_dict(), "record.json") == kept
