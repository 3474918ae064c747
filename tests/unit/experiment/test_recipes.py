"""Recipes: which source wins, what is refused before the graph is built, jobs and identities of several recipes."""

import json
import re

import pytest
import yaml

from segbench.core.cards import model_cards, objective_cards
from segbench.core.vocabulary import EQUAL
from segbench.experiment.config import Config, Training, parse_config
from segbench.experiment.config.training import Recipe, merged, recipe_problems, recipe_text
from segbench.experiment.identity import training_settings_identity
from segbench.experiment.jobs import all_jobs, expected_keys, training_jobs
from segbench.experiment.splits import Splits
from tests.paths import ROOT
from tests.unit.experiment.configs import changed, demo, lines, only
from tests.unit.written_run import splits_content

CARDS = {name: card for name, card in (model_cards() | objective_cards()).items() if card.get("published_recipe")}
UNETR = {"name": "unetr", "recipe": "published"}
ADAMW = {"optimiser": "adamw", "initial_learning_rate": 1e-3}
TUNED = {"name": "unetr", "recipe": "tuned"}
TUNING = {"learning_rates": [0.1, 0.01], "iterations_per_task": 10}


def with_models(*entries, **sections) -> dict:
    """Return the default config with these models in the place of its own, and changed keys of other sections."""
    content = demo()
    content["upstream"]["models"] = ["uniseg", "dodnet", "multi_head", "single_task", *entries]
    for name, keys in sections.items():
        content[name] |= keys
    return content


def parsed(content: dict) -> Config:
    return parse_config(content, where="x")


def training(config: Config, key: str, recipe: str, experiment: str = "upstream") -> Training:
    return config.training_of(experiment, config.entry_of(experiment, key, recipe))


def test_a_published_recipe_wins_over_the_experiment_but_not_over_its_budget():
    config = parsed(with_models(UNETR, training={"iterations_per_task": 7, "weight_decay": 0.5}))
    found = training(config, "unetr", "published")
    assert (found.optimiser, found.initial_learning_rate, found.weight_decay) == ("adamw", 1e-4, 3e-5)
    assert (found.iterations_per_task, found.augmentation) == (7, "light"), "the budget, and what the card leaves open"
    assert "momentum" not in found.effective(), "the momentum of the experiment's SGD went with SGD"


def test_a_published_recipe_without_warm_up_has_none():
    config = parsed(with_models({"name": "nnunet_plain", "recipe": "published"}, training={"warmup": 0.1}))
    assert training(config, "nnunet_plain", "published").warmup == 0
    assert training(config, "uniseg", "equal").warmup == 0.1


def test_an_entry_wins_over_downstream_training_which_wins_over_training():
    content = with_models(training={"initial_learning_rate": 1.0, "weight_decay": 0.1, "gradient_clip": 3})
    content["downstream"] |= {
        "training": {"iterations_per_task": 5, "initial_learning_rate": 2.0, "weight_decay": 0.2},
        "models": [{"name": "single_task", "recipe": {"initial_learning_rate": 3.0}}],
    }
    found = training(parsed(content), "single_task", "own", "downstream")
    assert (found.initial_learning_rate, found.weight_decay, found.gradient_clip) == (3.0, 0.2, 3.0)
    assert found.iterations_per_task == 5


def test_a_layer_with_another_optimiser_or_schedule_drops_what_belonged_to_the_former():
    base = Training(momentum=0.9, poly_exponent=0.5).model_dump()
    found = Training(**merged(base, ADAMW | {"learning_rate_schedule": "cosine"}, {"betas": [0.8, 0.9]}))
    assert (found.momentum, found.poly_exponent, found.betas) == (None, None, (0.8, 0.9))
    again = Training(**merged(found.model_dump(), {"optimiser": "sgd"}))
    assert (again.betas, again.effective()["momentum"]) == (None, 0.99)


def test_what_acts_holds_defaults_and_no_key_without_an_effect():
    acting = Recipe(**ADAMW, learning_rate_schedule="constant").effective()
    assert acting["betas"] == [0.9, 0.999]
    assert acting["epsilon"] == 1e-8
    assert not {"momentum", "poly_exponent"} & acting.keys()


@pytest.mark.parametrize("name", sorted(CARDS))
def test_the_recipe_of_each_card_can_be_used(name):
    keys = CARDS[name]["published_recipe"]["keys"]
    assert CARDS[name]["published_recipe"]["source"]
    assert set(keys) <= set(Recipe.model_fields)
    assert not list(recipe_problems("x", Training(**merged(Training().model_dump(), keys))))
    assert "drop_path" not in keys or "drop_path" in CARDS[name]["options"]


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("restoration", {"optimiser": "sgd", "initial_learning_rate": 1.0, "batch_size": 6}),
        ("deep_self_distillation", {"optimiser": "sgd", "batch_size": 192, "learning_rate_schedule": "cosine"}),
        ("volume_contrast", ADAMW | {"initial_learning_rate": 1e-4, "learning_rate_schedule": "cosine"}),
        ("medformer", ADAMW | {"initial_learning_rate": 6e-4, "weight_decay": 0.05, "ema_decay": 0.99}),
        ("medformer", {"epsilon": 1e-5, "learning_rate_schedule": "poly", "warmup": 0.0125, "gradient_clip": None}),
        ("vista3d", ADAMW | {"initial_learning_rate": 2e-5, "learning_rate_schedule": "cosine"}),
        ("swin_unetr_v2", ADAMW | {"initial_learning_rate": 1e-4, "warmup": 0.01, "batch_size": 4}),
        ("segresnet", ADAMW | {"initial_learning_rate": 2e-4, "learning_rate_schedule": "cosine", "warmup": 0.01}),
        ("segresnet_plain", {"optimiser": "adam", "initial_learning_rate": 1e-4, "weight_decay": 1e-5}),
        ("models_genesis", {"optimiser": "adam", "initial_learning_rate": 1e-3, "batch_size": 16}),
        ("stunet", {"optimiser": "sgd", "initial_learning_rate": 0.01, "momentum": 0.99, "gradient_clip": 12.0}),
        ("masked_autoencoder", {"optimiser": "sgd", "initial_learning_rate": 0.01, "learning_rate_schedule": "poly"}),
        ("nnformer", {"optimiser": "sgd", "initial_learning_rate": 0.01, "drop_path": 0.2}),
        ("cotr", ADAMW | {"initial_learning_rate": 5e-4}),
        ("ux_net", ADAMW | {"initial_learning_rate": 5e-4}),
        ("unetr", ADAMW | {"initial_learning_rate": 1e-4}),
        ("mednext", ADAMW | {"initial_learning_rate": 1e-3}),
    ],
)
def test_published_recipes_are_those_of_their_sources(name, stated):
    assert stated.items() <= CARDS[name]["published_recipe"]["keys"].items()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            {"name": "unetr", "recipe": ADAMW | {"momentum": 0.9}},
            "unetr.recipe.momentum: found 0.9 with optimiser adamw",
        ),
        ({"name": "unetr", "recipe": {"betas": [0.9, 0.98]}}, "betas: found [0.9, 0.98] with optimiser sgd"),
        (
            {"name": "unetr", "recipe": ADAMW | {"learning_rate_schedule": "cosine", "poly_exponent": 1}},
            "only with poly",
        ),
        ({"name": "unetr", "recipe": {"warmup": 120}}, "found 120 steps of warm-up in a run of 120"),
        ({"name": "cond_none", "recipe": {"warmup": 1320}}, "found 1320 steps of warm-up in a run of 1320"),
        ({"name": "unetr", "recipe": {"warmup": 1.5}}, "unetr.recipe.warmup"),
        ({"name": "unetr", "recipe": {"warmup": -1}}, "unetr.recipe.warmup"),
        ({"name": "unetr", "recipe": {"warmup": 1.0}}, "unetr.recipe.warmup: found 1.0"),
        ({"name": "unetr", "recipe": {"ema": True}}, "unetr.recipe.ema: found an unknown key"),
        ({"name": "unetr", "recipe": {"ema_decay": True}}, "unetr.recipe.ema_decay"),
        ({"name": "unetr", "recipe": {"ema_decay": 1.0}}, "unetr.recipe.ema_decay: found 1.0"),
        ({"name": "unetr", "recipe": {"drop_path": 0.1}}, "found 0.1 for unetr; expected a network with this option"),
        ({"name": "unetr", "recipe": {"optimiser": "lamb"}}, "unetr.recipe.optimiser: found 'lamb'"),
        ({"name": "unetr", "recipe": {"iterations_per_task": 5}}, "the budget is the experiment's"),
        ({"name": "unetr", "recipe": {"momentun": 0.5}}, "did you mean 'momentum'?"),
        ({"name": "pvt_v2_b1", "recipe": "published"}, "the card of pvt_v2_b1 states none"),
        ({"name": "hermes", "recipe": "published"}, "LAMB"),
        ({"name": "tal", "recipe": "published"}, "RMSprop"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_in_one_line(entry, words):
    assert words in only(with_models(entry))


@pytest.mark.parametrize("word", ["publisched", 3])
def test_an_unknown_recipe_is_refused(word):
    assert "upstream.models.4.recipe" in "\n".join(lines(with_models({"name": "unetr", "recipe": word})))


def test_a_recipe_of_the_experiment_is_checked_once():
    assert "training.momentum: found 0.9 with optimiser adamw" in only(changed("training.optimiser", "adamw"))
    assert "training.warmup: found 120 steps" in lines(changed("training.warmup", 120))[0]


def test_a_warmup_may_be_as_long_as_leaves_one_step():
    config = parsed(
        with_models({"name": "unetr", "recipe": {"warmup": 119}}, {"name": "cond_none", "recipe": {"warmup": 1319}})
    )
    assert training(config, "unetr", "own").warmup_steps(120) == 119
    assert Recipe(warmup=0.05).warmup_steps(50) == 2
    assert Recipe().warmup_steps(50) == 0


def test_one_network_at_two_recipes_makes_two_jobs_of_which_the_equal_one_keeps_its_name():
    config = parsed(with_models("unetr", UNETR))
    ids = [job.id for job in training_jobs(config) if (job.model, job.scope) == ("unetr", "phantom_liver")]
    name = "upstream.unetr.random.phantom_liver.f0.s0"
    assert ids == [name, f"{name}.published"]
    everything = [job.id for job in all_jobs(config)]
    assert len(set(everything)) == len(everything)
    assert all(job.recipe == EQUAL for job in training_jobs(config) if job.model != "unetr")
    assert {job.recipe for job in all_jobs(config) if job.control} == {"none"}


def test_rows_carry_the_recipe_in_their_key():
    config = parsed(with_models("unetr", UNETR))
    sides = {"train": ["a"], "test": ["b"]}
    splits = Splits.from_dict(splits_content({"0": dict.fromkeys(config.all_task_names, sides)}))
    keys = list(expected_keys(config, splits))
    assert len(set(keys)) == len(keys)
    assert {key[3] for key in keys if key[1] == "unetr"} == {"equal", "published"}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (["unetr", "unetr"], "'unetr' twice"),
        ([UNETR, UNETR], "'unetr' twice"),
        (["unetr", {"name": "ux_net", "id": "unetr", "recipe": "published"}], "one network by one id"),
        ([{"name": "unetr", "recipe": ADAMW}, {"name": "unetr", "recipe": {"momentum": 0.5}}], "'unetr' twice"),
    ],
)
def test_an_id_stands_once_per_recipe_and_for_one_network(entries, words):
    assert words in only(with_models(*entries))


def test_the_identity_holds_what_acts_and_not_the_name_of_the_recipe():
    card = {"warmup": 0} | CARDS["unetr"]["published_recipe"]["keys"]
    config = parsed(with_models("unetr", UNETR))
    own = parsed(with_models({"name": "unetr", "recipe": card}))
    stated = parsed(with_models("unetr", training=card | {"momentum": None}))

    def identity(config, recipe):
        jobs = training_jobs(config)
        job = next(job for job in jobs if (job.model, job.recipe, job.scope) == ("unetr", recipe, "phantom_liver"))
        return training_settings_identity(config, job).digest

    equal, published = identity(config, "equal"), identity(config, "published")
    assert equal != published
    assert identity(own, "own") == identity(stated, "equal") == published


def test_weights_of_a_model_at_several_recipes_need_a_choice():
    content = with_models({"name": "uniseg", "recipe": "published"})
    assert "uniseg is trained by several recipes; expected one of: equal, published" in only(content)
    starts = content["downstream"]["initialisations"]
    starts[starts.index("uniseg")] = {"name": "uniseg", "upstream_recipe": "published"}
    config = parsed(content)
    job = next(job for job in training_jobs(config) if job.initialisation == "uniseg")
    source = job.source(config)
    assert source.id == "upstream.uniseg.random.joint.f0.s0.published"
    assert source in training_jobs(config)
    starts[0] = {"name": "scratch", "upstream_recipe": "equal"}
    assert "no recipe beside scratch or a file" in only(content)


def test_a_resolved_config_reads_back_as_it_was():
    content = with_models("unetr", UNETR, {"name": "unetr", "recipe": {"warmup": 0.1, "gradient_clip": None}})
    config = parsed(content)
    again = parsed(json.loads(json.dumps(config.model_dump(mode="json"))))
    assert again == config
    assert training(again, "unetr", "own").gradient_clip is None


def test_downstream_networks_have_initialisations_sizes_and_recipes_of_their_own():
    content = demo()
    content["downstream"] |= {
        "models": [
            "single_task",
            {"name": "unetr", "recipe": "published", "initialisations": ["scratch"], "network": {"base_features": 4}},
        ],
    }
    config = parsed(content)
    jobs = [job for job in training_jobs(config) if job.experiment == "downstream"]
    assert {(job.model, job.initialisation) for job in jobs} == {
        *(("single_task", name) for name in ("scratch", "multi_head", "dodnet", "uniseg")),
        ("unetr", "scratch"),
    }
    unetr = next(job for job in jobs if job.model == "unetr")
    assert unetr.id == "downstream.unetr.scratch.phantom_abdomen13.f0.s0.published"
    assert config.network_of("downstream", unetr.entry(config), unetr.scope).base_features == 4
    single = next(job for job in jobs if job.model == "single_task")
    assert config.network_of("downstream", single.entry(config), single.scope) == config.network
    wider = json.loads(json.dumps(content))
    wider["downstream"]["models"][1]["network"] = {"base_features": 6}
    differs = {
        job.model
        for job in jobs
        if training_settings_identity(config, job) != training_settings_identity(parsed(wider), job)
    }
    assert differs == {"unetr"}


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ([{"name": "unetr", "network": {"base_feature": 4}}], "did you mean 'base_features'?"),
        ([{"name": "unetr", "network": {"base_features": 2}}], "downstream.models.unetr.network.base_features"),
        ([{"name": "unetr", "network": {"patch_size_zyx": [30, 32, 32]}}], "models.unetr.network.patch_size_zyx"),
        (
            [{"name": "unetr", "initialisations": ["scratch", "scratch"]}],
            "unetr.initialisations: found 'scratch' twice",
        ),
        (["unetr", "unetr"], "'unetr' twice at the recipe equal"),
        ([{"name": "unetr", "recipe": {"warmup": 120}}], "found 120 steps of warm-up in a run of 120"),
    ],
)
def test_a_downstream_network_that_cannot_be_is_refused(models, words):
    content = demo()
    content["downstream"]["models"] = models
    assert words in "\n".join(lines(content))


def test_a_downstream_network_without_initialisations_is_refused():
    content = demo()
    del content["downstream"]["initialisations"]
    assert "found none for single_task" in only(content)


def test_scratch_at_the_combined_budget_adds_the_steps_of_pre_training_and_needs_no_source():
    content = with_models(training={"iterations_per_task": 7})
    content["downstream"] |= {
        "training": {"iterations_per_task": 5},
        "initialisations": ["scratch", "scratch_combined", "uniseg"],
    }
    content["upstream"].pop("self_supervised", None)
    config = parsed(content)
    jobs = {job.initialisation: job for job in training_jobs(config) if job.experiment == "downstream"}
    steps = {
        name: config.training_of("downstream", job.entry(config), name).iterations_per_task
        for name, job in jobs.items()
    }
    combined = 5 + 7 * len(content["upstream"]["tasks"])
    assert steps == {"scratch": 5, "scratch_combined": combined, "uniseg": 5}
    assert jobs["scratch_combined"].source(config) is None
    parts = [training_settings_identity(config, jobs[name]).parts for name in ("scratch", "scratch_combined")]
    assert {name for name in parts[0] if parts[0][name] != parts[1][name]} == {"training"}
    assert parts[0].keys() == parts[1].keys()


def test_a_tuned_entry_has_the_equal_recipe_and_a_grid_in_the_place_of_the_rate():
    config = parsed(with_models("unetr", TUNED, training={"tuning": TUNING}))
    equal, tuned = training(config, "unetr", "equal"), training(config, "unetr", "tuned")
    assert equal.tuning is None
    assert tuned.tuning.validation_fraction == 0.2
    assert tuned.at_rate(equal.initial_learning_rate) == equal
    acting = tuned.effective()
    assert acting["tuning"] == {"learning_rates": [0.1, 0.01], "iterations_per_task": 10, "validation_fraction": 0.2}
    assert "initial_learning_rate" not in acting
    assert {name for name in acting if name not in equal.effective()} == {"tuning"}
    assert "initial_learning_rate tuned over 2 values (0.1, 0.01; trials of 10 steps per task" in recipe_text(tuned)
    assert "tuned" not in recipe_text(equal)
    trial = tuned.trial(0.1)
    assert (trial.initial_learning_rate, trial.iterations_per_task, trial.tuning) == (0.1, 10, None)
    names = [job.id for job in training_jobs(config) if job.recipe == "tuned" and job.scope == "phantom_liver"]
    assert names == ["upstream.unetr.random.phantom_liver.f0.s0.tuned"]


def test_tuning_changes_the_identity_of_tuned_jobs_alone():
    plain = parsed(with_models("unetr", UNETR, {"name": "unetr", "recipe": {"warmup": 5}}))
    several = ("unetr", UNETR, {"name": "unetr", "recipe": {"warmup": 5}}, TUNED)
    first = parsed(with_models(*several, training={"tuning": TUNING}))
    second = parsed(with_models(*several, training={"tuning": TUNING | {"iterations_per_task": 11}}))
    rate = first.training.initial_learning_rate
    other_rate = parsed(with_models(*several, training={"tuning": TUNING, "initial_learning_rate": 2 * rate}))

    def parts(config):
        return {job.id: training_settings_identity(config, job).parts for job in training_jobs(config)}

    before, found, longer = parts(plain), parts(first), parts(second)
    tuned = {name for name in found if name.endswith(".tuned")}
    assert found.keys() - before.keys() == tuned != set()
    assert {name: found[name] for name in before} == before
    assert {name for name in found if longer[name] != found[name]} == tuned
    assert not tuned & {name for name, own in parts(other_rate).items() if own != found[name]}, "the rate has no effect"
    for name in tuned:
        equal = found[name.removesuffix(".tuned")]
        assert {part for part in found[name] if found[name].get(part) != equal.get(part)} == {"training", "tuning code"}


@pytest.mark.parametrize(
    ("tuning", "words"),
    [
        (TUNING | {"learning_rates": [0.1]}, "training.tuning.learning_rates: found [0.1]"),
        (TUNING | {"learning_rates": []}, "training.tuning.learning_rates: found []"),
        (TUNING | {"learning_rates": [0.1, 0.1]}, "training.tuning.learning_rates: found 0.1 twice"),
        (TUNING | {"learning_rates": [0.1, 0.0]}, "training.tuning.learning_rates.1: found 0.0; expected greater than"),
        (TUNING | {"learning_rates": [0.1, -1]}, "training.tuning.learning_rates.1: found -1"),
        (TUNING | {"iterations_per_task": 0}, "training.tuning.iterations_per_task: found 0"),
        (TUNING | {"validation_fraction": 0}, "training.tuning.validation_fraction: found 0"),
        (TUNING | {"validation_fraction": 0.51}, "training.tuning.validation_fraction: found 0.51"),
        (TUNING | {"rates": [1]}, "training.tuning.rates"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(tuning, words):
    assert words in only(with_models(TUNED, training={"tuning": tuning}))


def test_a_tuned_entry_needs_a_grid_and_a_warmup_shorter_than_a_trial():
    assert "unetr.recipe: found tuned, and no training.tuning; expected learning_rates" in only(with_models(TUNED))
    content = with_models(TUNED, training={"tuning": TUNING, "warmup": 10})
    assert "training.warmup: found 10 steps of warm-up in a trial of training.tuning of 10" in only(content)
    joint = {"name": "cond_none", "recipe": "tuned"}
    parsed(with_models(joint, training={"tuning": TUNING, "warmup": 10}))
    assert parsed(with_models("unetr", training={"tuning": TUNING, "warmup": 10})), "no entry uses the grid"


def test_an_objective_is_not_tuned():
    content = with_models(training={"tuning": TUNING})
    content["upstream"]["self_supervised"] = [{"name": "restoration", "recipe": "tuned"}]
    content["downstream"]["initialisations"] = ["scratch", "restoration"]
    assert "self_supervised.restoration.recipe: found tuned for restoration; expected a model that" in only(content)


def test_downstream_may_have_a_grid_of_its_own():
    content = with_models()
    content["downstream"] |= {"models": [{"name": "single_task", "recipe": "tuned"}], "training": {"tuning": TUNING}}
    assert training(parsed(content), "single_task", "tuned", "downstream").tuning.learning_rates == (0.1, 0.01)
    content["downstream"]["training"]["tuning"] = TUNING | {"validation_fraction": 2}
    assert "downstream.training.tuning.validation_fraction: found 2" in only(content)


@pytest.mark.parametrize(
    "protocol", [{"protocol": "seeded", "test_fraction": 0.5}, {"protocol": "kfold", "fold_count": 2}]
)
def test_a_tuned_entry_needs_two_training_patients(protocol):
    content = with_models(TUNED, training={"tuning": TUNING})
    content["data"] |= {"phantom": {"seed": 1, "train_cases": 1, "test_cases": 1}, **protocol}
    first = lines(content)[0]
    assert "data.protocol: found 1 training case(s) of phantom_liver for unetr with the recipe tuned" in first
    content["data"]["phantom"]["train_cases"] = 3
    parsed(content)
    content["training"]["validation_fraction"] = 0.1
    assert "found 2 training case(s)" in lines(content)[0]
    assert "expected at least 3 training patients, one of which scores the trials" in lines(content)[0]


def test_the_tuned_entries_that_paper_yaml_offers_as_comments_can_be_used():
    text = (ROOT / "config" / "paper.yaml").read_text()
    plain, offered = (
        yaml.safe_load(text),
        yaml.safe_load(re.sub(r"(?m)^( +)# (tuning:|- .*recipe: tuned)", r"\1\2", text)),
    )
    assert offered["training"].keys() - plain["training"].keys() == {"tuning"}
    config = parsed(offered | {"data": offered["data"] | {"root": "x"}})
    tuned = {job.model for job in training_jobs(config) if job.recipe == "tuned"}
    assert tuned == {"uniseg", "dodnet", "unetr", "swin_unetr"}
    assert not [entry for entry in plain["upstream"]["models"] if "tuned" in str(entry)]
