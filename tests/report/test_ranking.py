"""The section on what a ranking is worth: each number agrees with one computed here, on pretended runs."""

import re

import numpy as np
import pytest
import scipy.stats
from matplotlib.axes import Axes
from pretended_run import plateaued, write_run

from edgeflownas.nas.arch_codec import to_digits
from edgeflownas.nas.cost import subnet_cost
from edgeflownas.nas.random_codes import random_codes
from edgeflownas.nas.search_space import get_space
from edgeflownas.network.layer_table import layer_table
from edgeflownas.report import write_report
from edgeflownas.reporting import facts, plots
from edgeflownas.reporting.ranking import better_options, gap_in_words, options_in_words, stability
from edgeflownas.reporting.verdict import option_scores
from edgeflownas.run.epe_samples import read_epe_samples
from edgeflownas.run.read import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(write_run(tmp_path_factory.mktemp("ranking") / "run"))


@pytest.fixture(scope="module")
def text(run):
    return write_report(run.folder).read_text(encoding="utf-8")


def number(pattern, text):
    return float(re.search(pattern, text).group(1))


def test_tau_against_costs(run, text):
    layers = layer_table(6, run.space)
    costs = [subnet_cost(code, layers, run.space, 67, 83) for code in run.subnets.codes]
    for name, values in (
        ("parameters", [c.parameters for c in costs]),
        ("multiply-adds", [c.multiply_adds for c in costs]),
    ):
        wanted = -scipy.stats.kendalltau(values, run.subnets.epe[-1])[0]
        assert number(name + r" ~(-?[0-9.]+) \(", text) == pytest.approx(wanted, abs=0.006)


def test_pairs_that_differ_by_more_than_chance(run, text):
    epe = read_epe_samples(run.folder, run.space).last.astype(float)
    pairs = [(i, j) for i in range(12) for j in range(i + 1, 12)]
    wanted = sum(scipy.stats.ttest_rel(epe[i], epe[j])[1] < 0.05 for i, j in pairs)
    assert f"{wanted} of 66 pairs of subnets differ by more than chance among the 5 samples" in text


def test_how_far_each_subnet_is_behind_the_best(run, text):
    stored = read_epe_samples(run.folder, run.space)
    epe = {to_digits(code, run.space): row.astype(float) for code, row in zip(stored.codes, stored.last)}
    best = min(epe, key=lambda code: epe[code].mean())
    section = text.split("## The subnets of the pool")[1]
    for code, recorded in zip(run.subnets.codes, run.subnets.epe[-1] - run.subnets.epe[-1].min()):
        (row,) = re.findall(rf"\| `{code}` \|.*", section)
        if code == best:
            assert "| best |" in row
            continue
        gap, error = map(float, re.search(r"~([0-9.]+) \+- ~([0-9.]+)", row).groups())
        assert gap == pytest.approx(epe[code].mean() - epe[best].mean(), abs=6e-5)
        assert gap == pytest.approx(recorded, abs=2e-4)
        assert error == pytest.approx(scipy.stats.sem(epe[code] - epe[best]), abs=6e-5)
        assert ("tied with the best" in row) == (scipy.stats.ttest_rel(epe[code], epe[best])[1] >= 0.05)


def test_a_gap_in_words():
    assert gap_in_words(0.0, 0.0, True) == "best"
    assert gap_in_words(0.01234, 0.004, False) == "~0.0123 +- ~0.0040"
    assert gap_in_words(0.01234, 0.04, True) == "~0.0123 +- ~0.0400, tied with the best"
    assert gap_in_words(0.01234, float("nan"), True).endswith("error unknown from one sample, tied with the best")


def test_without_samples_of_the_last_evaluation_nothing_is_said_of_pairs(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "eval_epe_samples.npz").unlink()
    assert "pairs of subnets differ" not in write_report(folder).read_text(encoding="utf-8")


def test_only_evaluations_at_a_high_learning_rate_say_how_stable_the_ranking_is(tmp_path):
    """Of 20 epochs, the cosine is above 5% of its start until the 17th."""
    run = read_run(write_run(tmp_path / "run", epochs=20, num_epochs=20, means=plateaued))
    lr = 0.5 * (1 + np.cos(np.pi * (np.arange(1, 21) * 3 - 1) / 60))
    assert stability(run).counted.tolist() == (lr > 0.05).tolist() and 15 < int(np.sum(lr > 0.05)) < 20
    last = facts.taus(run)[int(np.sum(lr > 0.05)) - 6 : int(np.sum(lr > 0.05)) - 1]
    (words,) = [text for _, name, text in facts._ranking(run)]
    assert f"~{np.mean(last):.2f} on average over the last 5 at a learning rate above 5% of its start" in words


def test_options_and_their_model(text):
    assert "outside a 95% interval (a linear model for each block, 12 subnets)" in text


def test_an_option_that_is_better_is_named_by_its_block_and_label():
    space = get_space("edgeflownet_v1")
    codes = [to_digits(code, space) for code in random_codes(0, 40, space)]
    epe = np.array([3 + 0.5 * (code[4] != "2") for code in codes]) + 0.01 * np.random.RandomState(0).randn(40)
    words = options_in_words(codes, epe, space)
    assert words.endswith("a linear model over all blocks, 40 subnets): H0Out 3x3.")


def test_only_an_option_that_is_better_is_marked_in_the_picture(monkeypatch):
    space = get_space("edgeflownet_v1")
    codes = [to_digits(code, space) for code in random_codes(0, 40, space)]
    noise = 0.01 * np.random.RandomState(0).randn(40)
    epe = np.array([3 + 0.5 * (code[4] != "2") for code in codes]) + noise
    assert better_options(codes, epe, space) == [("H0Out", "3x3")]
    assert better_options(codes, 3 + noise, space) == []
    assert (
        better_options(codes[:2], epe[:2], space) == [] == better_options(codes, np.where(epe > 3.4, np.nan, 3), space)
    )
    marked = []
    real = Axes.plot

    def noted(axis, *args, **style):
        marked.append(style.get("marker"))
        return real(axis, *args, **style)

    monkeypatch.setattr(Axes, "plot", noted)
    scores = option_scores(space, codes, epe.tolist(), [str(value) for value in epe])
    plots.options(scores, better_options(codes, epe, space))
    assert marked.count("D") == 1 and marked.count("o") == len(scores) - 1
    marked.clear()
    plots.options(scores, [])
    assert "D" not in marked
