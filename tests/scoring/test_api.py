"""`Supernet.load(...).evaluate(...)`: what it scores, what it refuses."""

import os
import re
import shutil

import numpy as np
import pytest

from edgeflownas.api import Interrupted, Supernet
from edgeflownas.errors import DataError, UserError
from edgeflownas.nas.arch_codec import to_digits
from edgeflownas.nas.cost import subnet_cost
from edgeflownas.nas.random_codes import random_codes
from edgeflownas.network.layer_table import layer_table
from tests.nas.nas_spaces import V1

LAYERS = layer_table(2, V1)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture(scope="module")
def supernet(original_run):
    """The best checkpoint, loaded once, with a pool of two cycles: graphs take seconds to build."""
    with Supernet.load(original_run.folder, settings={"eval.pool_size": 6}) as loaded:
        yield loaded


def test_the_pool_at_once_scores_as_its_codes_alone(supernet):
    pooled = supernet.evaluate(supernet.pool)
    alone = supernet.evaluate(supernet.pool[::-1])[::-1]
    assert [result.arch_code for result in pooled] == [to_digits(code, supernet.space) for code in supernet.pool]
    assert [result.arch_code for result in alone] == [result.arch_code for result in pooled]
    np.testing.assert_allclose([one.epe for one in alone], [one.epe for one in pooled], rtol=1e-5)
    assert len({round(result.epe, 4) for result in pooled}) == 6, "the subnets differ, so their scores do"


def test_results_say_what_they_are(supernet):
    spelled = supernet.evaluate(["0,1,2,0,0,1,2,1,0", [0] * 9, "000001000"])
    first = spelled[0]
    assert [result.arch_code for result in spelled] == ["012001210", "000000000", "000001000"]
    assert (first.parameters, first.multiply_adds) == subnet_cost("012001210", LAYERS, V1, 64, 67)
    assert (first.bn_recal_batches, first.num_samples) == (2, 3)
    assert first.zero_flow_epe == spelled[2].zero_flow_epe > 0


def test_the_example_of_the_manual_runs(original_run, tmp_path, monkeypatch, capsys):
    with open(os.path.join(ROOT, "docs", "manual.md"), encoding="utf-8") as handle:
        (example,) = re.findall(r"```python\n(.*?)```", handle.read(), re.S)
    (tmp_path / "outputs").mkdir()
    os.symlink(original_run.folder, str(tmp_path / "outputs" / "supernet"))
    monkeypatch.chdir(str(tmp_path))
    exec(compile(example, "docs/manual.md", "exec"), {})
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 3 and rows == sorted(rows, key=lambda row: float(row[1]))
    assert [(int(row[2]), int(row[3])) for row in rows] == [
        tuple(subnet_cost(row[0], LAYERS, V1, 64, 67)) for row in rows
    ]


def test_last_has_other_weights_and_settings_of_the_evaluation_are_free(supernet, original_run):
    settings = {"eval.num_samples": 1, "eval.bn_recal_batches": 3}
    with Supernet.load(original_run.folder, "last", settings) as last:
        assert (supernet.epoch, supernet.step) == (1, 1) and (last.epoch, last.step) == (2, 2)
        result = last.evaluate(["000001000"])[0]
        assert (result.num_samples, result.bn_recal_batches) == (1, 3)
        assert not np.array_equal(kernel(supernet), kernel(last))


def kernel(supernet):
    """The first layer's weights as they are in the session."""
    return supernet._session.run(supernet._net.variables.trained["supernet/E0/conv/kernel"])


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"network.init_channels": 4}, "network.init_channels was 2, is 4"),
        ({"data.input_height": 66}, "data.input_height was 64, is 66"),
        ({"train.seed": 43, "train.lr": 0.5}, "train.seed was 42, is 43; train.lr was 0.0001, is 0.5"),
        ({"eval.typo": 1}, "unknown key 'eval.typo'"),
        ({"eval.num_samples": "many"}, "eval.num_samples"),
    ],
)
def test_other_settings_are_refused_by_name(tiny_run, settings, named):
    with pytest.raises(UserError) as caught:
        Supernet.load(tiny_run.folder, settings=settings)
    assert named in str(caught.value)


def test_other_data_are_refused(tiny_run, tmp_path):
    other = str(tmp_path / "other")
    shutil.copytree(tiny_run.data, other)
    with open(os.path.join(other, "FC2_test.txt"), "w") as handle:
        handle.write("8\n9\n")
    with pytest.raises(UserError, match="trained on other samples"):
        Supernet.load(tiny_run.folder, settings={"data.base_path": other})


def test_wrong_codes_and_missing_runs_are_refused(supernet, tmp_path):
    with pytest.raises(ValueError, match="position 8"):
        supernet.evaluate(["000000000", "000000003"])
    assert supernet.evaluate([]) == []
    with pytest.raises(UserError, match="no checkpoint in"):
        Supernet.load(str(tmp_path / "nothing"))


def test_a_damaged_checkpoint_is_refused(tiny_run):
    generation = tiny_run.store.load("best")
    os.truncate(generation.prefix + ".data-00000-of-00001", 100)
    with pytest.raises(UserError, match="has 100 of"):
        Supernet.load(tiny_run.folder)


def test_a_damaged_sample_is_named(tiny_run, tmp_path):
    own = str(tmp_path / "own")
    shutil.copytree(tiny_run.data, own)
    with Supernet.load(tiny_run.folder, settings={"data.base_path": own}) as supernet:
        flow = supernet.index.val[1].flow
        with open(flow, "r+b") as handle:
            handle.seek(20)
            handle.write(b"\x00\x00\xc0\x7f")  # NaN
        with pytest.raises(DataError) as caught:
            supernet.evaluate(["000001000"])
    assert flow in str(caught.value)


def test_stop_gives_no_half_result(supernet):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 3  # in the middle of the first chunk

    with pytest.raises(Interrupted):
        list(supernet.stream(["000001000", "000000000"], stop))
    assert len(asked) == 4


def test_epe_per_sample_of_codes_alone_and_of_chosen_samples(supernet, original_run):
    codes = ["000001000", "012001210", "222222222"]
    scores = supernet.score_alone(codes)
    assert scores.epe_samples.shape == (3, 3) and scores.epe_samples.dtype == np.float32
    assert scores.epe.tolist() == scores.epe_samples.astype(np.float64).mean(axis=1).tolist()
    assert scores.epe.tolist() == [result.epe for result in supernet.evaluate(codes)]
    assert len(set(scores.epe_samples.ravel().tolist())) == 9
    names = [sample.name for sample in supernet.index.val]
    settings = {"eval.num_samples": 1}  # does not count where the samples are chosen
    with Supernet.load(original_run.folder, "best", settings, choose=lambda config, index: index.val[1:]) as chosen:
        part = chosen.score_alone(codes)
        assert [sample.name for sample in chosen.index.val] == names[1:]
    np.testing.assert_allclose(part.epe_samples, scores.epe_samples[:, 1:], rtol=1e-5)


def test_fused_groups_score_as_codes_alone_in_the_order_of_the_list(supernet):
    """Float32: convolutions of many paths at once may round in another order, no more."""
    rows = np.random.RandomState(4).permutation(random_codes(1, 15, supernet.space))
    rows = np.concatenate([rows, rows[3:5]])  # a code may be asked for twice
    fused = supernet.evaluate(rows)
    assert [result.arch_code for result in fused] == [to_digits(code, supernet.space) for code in rows]
    assert any(paths == 12 for paths, _, _ in supernet._scorers), "some went through the network together"
    alone = supernet.score_alone(rows)
    np.testing.assert_allclose([one.epe for one in fused], alone.epe, rtol=1e-5)
    assert len({round(result.epe, 4) for result in fused}) == 15, "the subnets differ, so their scores do"
