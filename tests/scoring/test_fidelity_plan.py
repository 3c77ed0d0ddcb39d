"""Study files and plans: what is decided, what is refused, and that a plan does not change."""

import json
import os

import pytest

from edgeflownas.data.fc2_index import build_index
from edgeflownas.errors import UserError
from edgeflownas.nas.arch_codec import to_digits
from edgeflownas.nas.eval_pool import build_pool
from edgeflownas.nas.search_space import get_space
from edgeflownas.scoring.fidelity import command
from edgeflownas.scoring.fidelity.plan import find_plan, make_plan, names_digest, read_plan
from edgeflownas.scoring.fidelity.study import read_study
from tests.scoring.pretended_study import VALIDATION, make_data, planned, write_study

SPACE = get_space("edgeflownet_v1")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def study(tmp_path, data):
    return write_study(tmp_path, data)


def test_the_plan_names_every_run_and_what_makes_it_differ(study):
    plan = planned(study)
    assert plan.counted == [to_digits(code, SPACE) for code in build_pool(42, 6, SPACE)]
    assert [code.arch_code for code in plan.codes if not code.counts] == ["000001000"]
    assert len(plan.runs) == 2 + 1 + 7 * 2 * 2 and len({run.name for run in plan.runs}) == len(plan.runs)
    assert len({run.config_hash for run in plan.runs}) == len(plan.runs)
    run = next(run for run in plan.runs if run.name == "alone-000001000-b2-s2")
    config = plan.run_config(run)
    assert (config.network.arch_code, config.train.seed, config.train.num_epochs) == ("000001000", 2, 4)
    assert (config.eval.pool_size, config.eval.patience, config.train.arch_seed) == (1, 4, 42)
    uniform = plan.run_config(plan.of_kind("uniform")[0])
    assert (uniform.train.supernet_mode, uniform.network.arch_code, uniform.eval.pool_size) == ("uniform", "", 6)
    seeds = [(one.train.seed, one.train.arch_seed) for one in map(plan.run_config, plan.of_kind("strict"))]
    assert seeds == [(42, 42), (43, 43)]


def test_the_scored_samples_are_the_half_that_training_does_not_see(study):
    plan = planned(study)
    split = plan.document["split"]
    assert (split["watched"], split["scored"]) == (VALIDATION // 2, VALIDATION // 2)
    assert all(plan.run_config(run).eval.num_samples == VALIDATION // 2 for run in plan.runs)
    validation = build_index(plan.config.data, 42).val
    assert split["scored_digest"] == names_digest([sample.name for sample in validation[VALIDATION // 2 :]])


def test_with_a_holdout_fc2_test_is_kept_for_the_scores(tmp_path, data):
    split = planned(write_study(tmp_path, data, {"data.holdout": 2})).document["split"]
    assert (split["training"], split["watched"], split["scored"]) == (5, 2, VALIDATION)
    assert "FC2_test" in split["source"]


def test_a_plan_is_made_again_only_if_it_says_the_same(study, capsys):
    assert command.main(["plan", study, "--steps", "0"]) == 0
    folder = find_plan(study).folder
    before = open(os.path.join(folder, "plan.json")).read()
    assert command.main(["plan", study, "--steps", "0"]) == 0
    assert "stands already" in capsys.readouterr().out
    with open(study, "a") as handle:
        handle.write("baseline: false\n")
    for words in (["plan", study, "--steps", "0"], ["run", study], ["report", study]):
        with pytest.raises(UserError, match="study"):
            command.main(words)
    assert open(os.path.join(folder, "plan.json")).read() == before


def test_an_edited_plan_is_refused(study):
    plan = planned(study)
    path = os.path.join(plan.folder, "plan.json")
    assert read_plan(plan.folder).runs == plan.runs
    document = json.load(open(path))
    document["runs"][0]["num_epochs"] = 1
    with open(path, "w") as handle:
        json.dump(document, handle)
    with pytest.raises(UserError, match="does not match its digest"):
        read_plan(plan.folder)
    with open(path, "w") as handle:
        handle.write("{")
    with pytest.raises(UserError, match="damaged"):
        read_plan(plan.folder)
    os.unlink(path)
    with pytest.raises(UserError, match="has no plan.json: make one with"):
        find_plan(study)


@pytest.mark.parametrize(
    "lines, words",
    [
        ({"alone_seed": "[1]"}, "unknown key 'alone_seed'; did you mean alone_seeds"),
        ({"alone_seeds": "[1]"}, "one seed has no spread"),
        ({"alone_seeds": "[1, 1]"}, "expected different seeds"),
        ({"alone_seeds": "1"}, "alone_seeds: expected a list of seeds, found 1"),
        ({"strict_seeds": "[]"}, "a study needs a supernet"),
        ({"strict_seeds": "[-1]"}, "expected a list of seeds"),
        ({"alone_seeds": "[]", "strict_seeds": "[1]"}, "nothing is compared"),
        ({"budgets": "[0]"}, "budgets: expected a list of different numbers above 0"),
        ({"budgets": "[0.3]"}, "0.3 times 2 epochs is not a whole number"),
        ({"codes": "[000001000]"}, "expected pool, or a list of codes in quotes"),
        ({"codes": '["000001000", "000001000", "000000000"]'}, "at least 3 different codes"),
        ({"codes": '["000001003", "000001000", "000000000"]'}, "codes: .*H2Out"),
        ({"baseline": "yes please"}, "expected true or false"),
        ({"settings": "{train.seed: 3}"}, "train.seed is what the study decides"),
        ({"settings": "[1]"}, "settings: expected"),
        ({"output": "3"}, "output: expected a path, found 3"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_study_is_said(tmp_path, data, lines, words):
    with pytest.raises(UserError, match=words):
        make_plan(read_study(write_study(tmp_path, data, **lines)))


def test_codes_may_be_listed_and_the_baseline_is_not_twice(tmp_path, data):
    path = write_study(tmp_path, data, codes='["000001000", "012001210", "222222222"]')
    plan = make_plan(read_study(path))
    assert plan.counted == ["000001000", "012001210", "222222222"] and len(plan.codes) == 3


@pytest.mark.parametrize("words", [["--task", "1"], ["--of", "2"], ["--task", "2", "--of", "2"]])
def test_a_share_needs_both_numbers(study, words):
    with pytest.raises(UserError, match="--task I goes with --of N"):
        command.main(["run", study] + words)


def test_help_needs_no_tensorflow(capsys):
    with pytest.raises(SystemExit):
        command.main(["run", "--help"])
    assert "--workers" in capsys.readouterr().out
