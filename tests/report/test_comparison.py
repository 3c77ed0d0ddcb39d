"""Several runs side by side."""

import re
import shutil

import numpy as np
import pytest
import scipy.stats
from pretended_run import write_long_run

from edgeflownas import report
from edgeflownas.errors import UserError
from edgeflownas.reporting import compare
from edgeflownas.reporting.differences import difference, level_with
from edgeflownas.reporting.write import write_comparison
from edgeflownas.run.epe_samples import read_epe_samples
from edgeflownas.run.read import read_run


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two runs with one pool, one with another pool, one without an evaluation."""
    root = tmp_path_factory.mktemp("runs")
    return [
        write_long_run(root / "strict", epochs=6, name="night"),
        write_long_run(root / "uniform", epochs=4, mode="uniform", name="night", overrides={"train.lr": 2e-4}),
        write_long_run(root / "other", epochs=5, arch_seed=8, status="completed"),
        write_long_run(root / "fresh", epochs=0, extra_steps=3),
    ]


@pytest.fixture(scope="module")
def text(folders, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "deep" / "comparison"
    assert write_comparison(folders, output) == output / "supernet_comparison.md"
    page = (output / "supernet_comparison.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2 and not re.search(r"https?://", page)
    assert sorted(path.name for path in (output / "report").iterdir()) == [
        "comparison_accuracy.png",
        "comparison_options.png",
    ]
    return (output / "supernet_comparison.md").read_text(encoding="utf-8")


def test_differences_of_runs_have_their_paired_errors(text, folders):
    section = text.split("## Differences")[1].split("## ")[0]
    runs = [read_run(folder) for folder in folders[:3]]
    means = [read_epe_samples(run.folder, run.space).best.astype(float).mean(axis=0) for run in runs]
    for (i, a), (j, b) in ((("0", "night (1)"), ("1", "night (2)")), (("0", "night (1)"), ("2", "other"))):
        x, y = means[int(i)], means[int(j)]
        row = next(line for line in section.splitlines() if line.startswith(f"| {a} | {b} |"))
        gap, error = map(float, re.search(r"~([+-][0-9.]+) \+- ~([0-9.]+)", row).groups())
        assert gap == pytest.approx(np.mean(x - y), abs=6e-5)
        assert error == pytest.approx(scipy.stats.sem(x - y), abs=6e-5)
        assert ("no: tied" in row) == (scipy.stats.ttest_rel(x, y)[1] >= 0.05)


def test_a_run_inside_the_error_of_the_best_is_tied_with_it(folders, tmp_path):
    best, other = read_run(folders[0]), read_run(folders[2])
    assert difference(best, best).gap == 0
    assert level_with([best, other], best, ["a", "b"]) == ([] if difference(other, best).beyond else ["b"])
    shutil.copytree(str(folders[0]), str(tmp_path / "same"))
    assert level_with([best, read_run(tmp_path / "same")], best, ["a", "b"]) == ["b"]
    write_comparison([folders[0], tmp_path / "same"], tmp_path / "out")
    page = (tmp_path / "out" / "supernet_comparison.md").read_text(encoding="utf-8")
    assert "night (1); tied with it, inside the error: night (2)" in page
    (tmp_path / "same" / "eval_epe_samples.npz").unlink()
    assert difference(best, read_run(tmp_path / "same")) is None


def test_the_configuration_differences_are_named_key_by_key(text):
    section = text.split("## Configuration")[1].split("## ")[0]
    assert "| `train.lr` | 0.0001 | 0.0002 | 0.0001 | 0.0001 |" in section
    assert "| `train.supernet_mode` | strict_fairness | uniform | strict_fairness | strict_fairness |" in section
    assert set(re.findall(r"`(\w+\.\w+)`", section)) == {
        "train.lr",
        "train.supernet_mode",
        "train.arch_seed",
        "runtime.experiment_name",
    }


def test_key_figures_are_the_runs_recorded_text(text, folders):
    best = [read_run(folder).last.best_mean_epe for folder in folders[:3]]
    assert "| Best mean EPE, px | {} | {} | {} |  |".format(*best) in text


def test_runs_of_one_name_are_told_apart(text):
    assert "| key | night (1) | night (2) | other | fresh |" in text


def test_kendall_tau_over_common_subnets_only(text, folders):
    strict, uniform, other = (read_run(folder) for folder in folders[:3])
    count, tau = compare.common_tau(strict, uniform)
    assert (count, -1 <= tau <= 1) == (12, True)
    assert f"| night (1) | night (2) | 12 | ~{tau:.3f} |" in text
    common = set(strict.subnets.codes) & set(other.subnets.codes)
    assert compare.common_tau(strict, other)[0] == len(common) < 2
    assert f"| night (1) | other | {len(common)} | too few |" in text


def test_option_scores_stand_side_by_side(text, folders):
    means = [f"~{compare.last_scores(read_run(folder))[0].mean:.4f}" for folder in folders[:3]]
    assert "| EB0 | Deep1 | {} | {} | {} |".format(*means) in text


def test_runs_on_different_samples_are_compared_by_ratio(folders, tmp_path):
    folder = write_long_run(tmp_path / "holdout", epochs=6)
    path = folder / "eval_epe_history.csv"
    path.write_text(path.read_text().replace(",8.25,", ",4.0,"))
    verdict = compare.build([read_run(folder), read_run(folders[0])])[1][0]
    assert verdict.title.endswith("of zero flow, night")
    assert "different samples" in str(verdict.items)


def test_the_lowest_run_is_that_of_the_best_evaluation_of_any(tmp_path):
    lower = write_long_run(tmp_path / "lower", epochs=3, means=(7.0, 4.125, 6.5), name="lower")
    last = write_long_run(tmp_path / "last", epochs=3, means=(7.0, 6.0, 5.0), name="last")
    runs = [read_run(folder) for folder in (last, lower)]
    assert compare.build(runs)[1][0].title.startswith("Lowest mean EPE: 4.1250 px, lower")
    assert [compare.percent_of_zero(run) for run in runs] == ["~60.6% of zero flow", "~50.0% of zero flow"]


def test_the_same_run_twice_is_refused(folders, tmp_path):
    with pytest.raises(UserError, match="named twice"):
        write_comparison([folders[0], folders[0] / ".." / "strict"], tmp_path)


def test_command_line(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert report.main([str(folders[2]), str(folders[3])]) == 0
    assert capsys.readouterr().out.split()[0] == "outputs/comparison/supernet_comparison.md"
