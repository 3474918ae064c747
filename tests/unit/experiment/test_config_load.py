"""Reading a config: the file, its keys, and all problems in one round."""

import copy
import random

import jsonschema
import pytest
import yaml

from segbench.core.errors import InputError
from segbench.core.provenance import content_hash
from segbench.core.schema import section_of
from segbench.experiment.config import load_config, parse_config, schema
from segbench.experiment.config.load import CHECKS
from tests.paths import ROOT
from tests.unit.experiment.configs import SHIPPED, changed, demo, lines, only


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid_and_says_what_to_expect(path, monkeypatch, tmp_path):
    monkeypatch.setenv("SEGBENCH_DATA", str(tmp_path))
    named = {"config": "demo", "real_one_fold": "real"}  # its report stands for that run
    assert load_config(path).run == named.get(path.stem, path.stem)
    head = path.read_text().split("run:")[0]
    for word in ("# Command:", "# Expected time:", "# Expected results:"):
        assert word in head


def shuffled(value, order: random.Random):
    """Return the content with the keys of every mapping in random order; lists keep theirs."""
    if isinstance(value, dict):
        keys = list(value)
        order.shuffle(keys)
        return {key: shuffled(value[key], order) for key in keys}
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_order_of_keys_means_nothing(path, monkeypatch, tmp_path):
    monkeypatch.setenv("SEGBENCH_DATA", str(tmp_path))
    content = yaml.safe_load(path.read_text())
    expected = parse_config(content, where="x")
    for seed in range(5):
        other = parse_config(shuffled(content, random.Random(seed)), where="x")
        assert other == expected
        assert content_hash(other.model_dump(mode="json")) == content_hash(expected.model_dump(mode="json"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_resolved_config_is_a_config(path, monkeypatch, tmp_path):
    monkeypatch.setenv("SEGBENCH_DATA", str(tmp_path))
    config = load_config(path)
    (tmp_path / "config.json").write_text(config.model_dump_json())
    assert load_config(tmp_path / "config.json") == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_an_editor_that_knows_the_schema_accepts_every_shipped_config(path):
    jsonschema.validate(yaml.safe_load(path.read_text()), schema())


def test_an_editor_that_knows_the_schema_refuses_a_wrong_metric():
    for content in (changed("metrics", ["dise"]), changed("missing_masks.dise", {}), changed("data.fold", 1)):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(content, schema())


GARBAGE = (None, True, -1, 3, 0.5, float("nan"), 10**400, "", "x", "a/b", "ä{", [], [None], [[1]], {}, {"a": 1}, {1: 2})


def locations(value, prefix=()):
    """Every place in a config, as keys and indices."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*prefix, key)
        yield from locations(inner, (*prefix, key))


def test_anything_at_any_key_is_accepted_or_named_and_never_a_crash():
    order = random.Random(0)
    places = list(locations(demo()))
    found: list[str] = []
    for _ in range(150):
        content = demo()
        *parents, last = order.choice(places)
        section = content
        for part in parents:
            section = section[part]
        section[last] = order.choice(GARBAGE)
        try:
            parse_config(content, where="x")
        except InputError as error:
            found.append(error.problems[0].line())
    assert 100 < len(found) < 150
    assert not any("\n" in line for line in found)


def test_an_unknown_key_is_refused_with_a_suggestion():
    line = only(changed("training.iteration_per_task", 5))
    assert "training.iteration_per_task" in line
    assert "did you mean 'iterations_per_task'?" in line


def test_all_problems_come_at_once():
    content = demo()
    content["upstream"]["tasks"][0] = "phantom_livr"
    content["upstream"]["models"][0] = "uniseq"
    content["network"]["patch_size_zyx"] = [30, 32, 32]
    content["metrics"] = ["dise"]
    found = "\n".join(lines(content))
    for part in ("did you mean 'phantom_liver'?", "did you mean 'uniseg'?", "30 along z", "did you mean 'dice'?"):
        assert part in found


def test_a_wrong_type_hides_no_problem_of_another_key():
    content = demo()
    content["upstream"]["tasks"][0] = "phantom_livr"
    content["upstream"]["unknown"] = 1
    content["training"]["momentum"] = 1.5
    content["seeds"] = [1, 1]
    content["network"]["base_features"] = "wide"
    content["network"]["patch_size_zyx"] = [30, 32, 32]
    content["metrics"] = ["dise"]
    content["missing_masks"] = {"hd95": {"failed": "never"}}
    del content["run"]
    found = lines(content)
    parts = (
        "'phantom_livr'", "upstream.unknown", "training.momentum", "seeds: found 1 twice", "network.base_features",
        "30 along z", "'dise'", "run: found nothing",
        "missing_masks.hd95.failed: found 'never'; expected a finite number, 'exclude' or 'diagonal'",
    )  # fmt: skip
    for part in parts:
        assert sum(part in line for line in found) == 1, (part, found)
    assert len(found) == len(parts)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seeds", [0, True]),
        ("training.iterations_per_task", True),
        ("training.weight_decay", False),
        ("training.warmup", True),
        ("training.mirror_axes", [False]),
        ("downstream.training", {"iterations_per_task": True}),
        ("network.base_features", True),
        ("missing_masks", {"hd95": {"failed": True}}),
    ],
)
def test_a_truth_value_is_no_number(key, value):
    line = only(changed(key, value))
    assert key.split(".")[-1] in line
    assert "number" in line


def test_a_number_may_be_written_as_text():
    content = changed("training.initial_learning_rate", "1e-3") | {"seeds": ["3"]}
    config = parse_config(content, where="x")
    assert (config.training.initial_learning_rate, config.seeds) == (0.001, (3,))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("run", False, "expected text; put it in quotes"),
        ("run", "my run", "expected letters, digits and underscores"),
        ("metrics", "dice", "expected a list"),
        ("metrics", [], "expected at least 1"),
        ("inference", None, "expected a section of keys"),
        ("seeds", ["x"], "expected a whole number"),
        ("data.accept_split_files", ["AB"], "expected 64 hexadecimal digits"),
        ("data.root", " ", "expected text that is not blank"),
        ("training.mirror_sides", 3, "expected true or false"),
    ],
)
def test_what_is_expected_is_said_without_words_of_python(key, value, message):
    assert message in only(changed(key, value))


@pytest.mark.parametrize("section", ["upstream", "downstream", "data", "network", "statistics"])
@pytest.mark.parametrize("value", [None, 3, "text", [], ["text"]])
def test_a_section_that_is_no_mapping_is_a_problem_and_not_a_crash(section, value):
    content = demo() | {section: value}
    if (section, value) == ("downstream", None):
        parse_config(content, where="x")
        return
    found = lines(content | {"metrics": ["dise"]})
    assert any(section in line for line in found)
    assert any("'dise'" in line for line in found)


def test_content_without_any_required_key_names_each():
    found = "\n".join(lines({"data": {"root": "x"}}))
    assert "run: found nothing" in found
    assert "upstream: found nothing" in found


@pytest.mark.parametrize("content", [None, [], "run", 3])
def test_content_that_is_no_mapping_is_refused(content):
    assert "a mapping of keys" in only(content)


def test_every_key_that_a_check_reads_exists():
    from segbench.experiment.config import Config

    for check in CHECKS:
        for key in check.reads:
            section = Config
            for part in key.split("."):
                assert part in section.model_fields, key
                section = section_of(section.model_fields[part].annotation)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: [", "not YAML"),
        ("run: a\nseeds: [0]\nrun: b\n", "the key 'run' in lines 1 and 3"),
        ("run: a\ndata:\n  root: x\n  folds: [0]\n  root: y\n", "the key 'root' in lines 3 and 5"),
        ('{"run": "a", "run": "b"}', "the key 'run' in lines 1 and 1"),
        ("upstream:\n  models:\n    - {name: uniseg, name: dodnet}\n", "the key 'name' in lines 3 and 3"),
        ("run: a\non: b\n", "the key 'on' in line 2, which is no text in YAML"),
        ("run: a\ndata:\n  task_protocols: {5: seeded}\n", "the key '5' in line 3, which is no text in YAML"),
        (b"run: a\ndescription: K\xf6rper\n", "byte 21 that is no UTF-8"),
    ],
)
def test_a_file_that_is_not_read_as_written_is_refused(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message.replace("(", r"\(")) as caught:
        load_config(path)
    assert all(str(path) in problem.where for problem in caught.value.problems)


def test_wrong_keys_hide_no_problem_of_another_key(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(demo() | {5: "x", "metrics": ["dise"]}) + "\nseeds: [0]\n")
    with pytest.raises(InputError) as caught:
        load_config(path)
    found = "\n".join(problem.line() for problem in caught.value.problems)
    assert all(part in found for part in ("the key '5'", "the key 'seeds' in lines", "did you mean 'dice'?"))


def test_an_absent_file_is_a_problem(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        load_config(tmp_path / "none.yaml")


def test_a_merge_key_may_be_overridden(tmp_path):
    content = demo()
    content["downstream"].pop("training")
    text = yaml.safe_dump(content) + "\n"
    text = text.replace("network:\n", "network:\n  <<: {max_features: 4, base_features: 4}\n")
    (tmp_path / "config.yaml").write_text(text)
    assert load_config(tmp_path / "config.yaml").network.max_features == 64


def test_the_content_is_left_as_it_was(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGBENCH_DATA", str(tmp_path))
    content = demo() | {"seeds": [1, 1]}
    before = copy.deepcopy(content)
    lines(content)
    assert content == before


def test_the_schema_file_and_the_key_list_are_in_step():
    from segbench.documentation.config import keys_page, schema_text

    remedy = "run: python -m segbench.documentation.config"
    assert (ROOT / "config" / "schema.json").read_text() == schema_text(), remedy
    assert (ROOT / "config" / "README.md").read_text() == keys_page(), remedy
    assert "upstream" in schema()["properties"]
