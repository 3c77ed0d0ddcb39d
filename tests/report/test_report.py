"""The report on one run: its verdict, its numbers, its two files, its command line."""

import csv
import datetime
import html.parser
import json
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pretended_run import MEANS, collapsed, collapsed_late, plateaued, stuck, write_long_run

from edgeflownas import report
from edgeflownas.errors import DataError
from edgeflownas.reporting import facts, plot_samples, plot_steps
from edgeflownas.reporting.write import write_report
from edgeflownas.run.read import read_run

SOON = datetime.datetime(2024, 5, 6, 8, 5, tzinfo=datetime.timezone.utc)  # the fake manifest is of 8:00


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A resumed, interrupted run and its report."""
    folder = write_long_run(
        tmp_path_factory.mktemp("runs") / "friday",
        epochs=14,
        extra_steps=3,
        resumes=2,
        status="interrupted",
        name="a&<b>",
    )
    assert write_report(folder, now=SOON) == folder / "supernet_training_report.md"
    return folder


# The thresholds that the report explains are numbers of the rules, not of a file.
RULES = str({**facts.verdict.__dict__, **facts.learning.__dict__})


def markdown(folder):
    return (folder / "supernet_training_report.md").read_text(encoding="utf-8")


def rows(path):
    with open(str(path), newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(
    "details, word, said",
    [
        (dict(), "Learned, still improving", "step 84 of 1400 (12 of 200 epochs)"),
        (dict(epochs=3), "Learned so far", "running"),
        (dict(means=plateaued, epochs=60), "Learned and plateaued", "from one to the next (fitted)"),
        (dict(means=stuck, epochs=60, status="completed"), "Plateaued near zero flow", "far too high"),
        (dict(means=collapsed), "Collapsed", "the supernet has learned no flow"),
        (dict(means=collapsed_late), "Collapsed after it had learned", "`supernet_best` is from before"),
        (dict(means=collapsed, epochs=4), "Too early to say", "running"),
        (dict(epochs=1), "Too early to say: only a little below zero flow", "px at epoch 1"),
        (dict(epochs=0, extra_steps=5), "Too early to say", "nothing has been measured yet"),
        (dict(epochs=0), "Too early to say", "no step yet"),
        (dict(status="failed"), "Failed. Until then: learned, still improving", "**failed** at step 84"),
        (dict(status="failed"), "Failed. Until then: learned, still improving", "loss is not finite"),
        (dict(status="interrupted"), "Learned, still improving", "--experiment_name friday --resume`"),
        (dict(status="early_stopped"), "Learned, still improving", "no improvement by more than 0.002 px in 15"),
        (dict(status="completed"), "Learned, still improving", "score any subnets"),
        (dict(clip_norms=2.0), "Learned, still improving", "saturated: at 5.0"),
        (dict(clip_norms=1.05), "Learned, still improving", "heavy: at 5.0"),
        (dict(clip_norms=0.1), "Learned, still improving", "never touched: at 5.0"),
        (dict(mode="uniform"), "Learned, still improving", "a gap is expected (largest "),
        (dict(gates={"gate3": "stale"}), "Learned, still improving", "**unsigned**: gate 3 was not valid"),
        (dict(gates={"gate3": "stale", "unsigned": True}), "Learned, still improving", "(`--unsigned` was given)"),
        (dict(dirty=True), "Learned, still improving", "with uncommitted changes"),
        (
            dict(overrides={"data.holdout": 640}),
            "Learned, still improving",
            "640 samples held out of the training list",
        ),
        (dict(), "Learned, still improving", "measured on 640 samples of FC2_test"),
    ],
)
def test_each_verdict_is_reached(tmp_path, details, word, said):
    run = read_run(write_long_run(tmp_path / "run", **details))
    items = facts.verdict_items(run, SOON)
    assert facts.headline(run).word == word
    assert said in "\n".join(f"{name}: {text}" for _, name, text in items)


def test_the_share_of_zero_flow_is_that_of_the_best_evaluation(tmp_path):
    """The third of seven evaluations is the best: 5.25 of 8.25 px. The last one has 5.6 px, 67.9%."""
    folder = write_long_run(tmp_path / "run", epochs=7, means=MEANS)
    write_report(folder, now=SOON)
    text = markdown(folder)
    assert "best mean EPE **5.25** px at epoch 3, ~63.6% of the **8.25** px of an all-zero flow" in text
    assert "Best mean / zero flow | ~63.6% |" in text


def test_a_broken_promise_of_fairness_is_shown_even_if_a_later_count_is_even(tmp_path):
    folder = write_long_run(tmp_path / "run")
    path = folder / "eval_epe_history.csv"
    lines = path.read_text().splitlines(True)
    cells = lines[3].split(",")
    cells[4] = "2"
    path.write_text("".join(lines[:3] + [",".join(cells)] + lines[4:]))
    items = {name: (tone, text) for tone, name, text in facts.verdict_items(read_run(folder), SOON)}
    assert items["Fairness"] == ("bad", "**broken**: strict fairness promises a gap of 0, the largest recorded is 2")


def test_a_run_that_says_running_but_has_not_moved_for_hours_is_called_dead(tmp_path):
    run = read_run(write_long_run(tmp_path / "run"))
    assert "may have been killed" not in str(facts.verdict_items(run, SOON))
    late = SOON + datetime.timedelta(hours=5)
    assert "manifest was last updated 5 h 5 min ago; it may have been killed" in str(facts.verdict_items(run, late))


def test_slow_input_is_named(tmp_path):
    folder = write_long_run(tmp_path / "run")
    path = folder / "timing.csv"
    path.write_text(re.sub(r"[^,]*\n$", "0.4321\n", path.read_text()))
    assert "0.4321 of the last epoch's training time was spent waiting for data" in str(
        facts.verdict_items(read_run(folder), SOON)
    )


def test_recorded_numbers_are_the_files_text(written):
    text = markdown(written)
    history = rows(written / "eval_epe_history.csv")
    for row in history[-12:]:
        for column in ("mean_epe_12", "std_epe_12", "zero_flow_epe", "train_loss", "lr", "clip_share"):
            assert f"| {row[column]} |" in text
    for row in rows(written / "eval_epe_per_arch.csv")[-12:]:
        assert f"| {row['rank']} | `{row['arch_code']}` | {row['epe']} |" in text
    assert f"| Best mean EPE, px | {history[-1]['best_mean_epe_12']} |" in text
    assert f"best mean EPE **{history[-1]['best_mean_epe_12']}** px" in text


def test_no_number_with_many_digits_is_from_elsewhere(written):
    """Numbers with many digits in the report are cells of a file; all others are rounded and have a tilde."""
    known = set()
    for name in ("eval_epe_history", "eval_epe_per_arch", "train_steps", "timing"):
        known.update(cell for row in rows(written / f"{name}.csv") for cell in row.values())
    with np.load(str(written / "eval_samples.npz")) as samples:
        known.update(str(epe) for epe in samples["epe"])
    shown = re.findall(r"(?<![\w.~`-])\d+\.\d{3,}(?:e-?\d+)?(?![\w.])", markdown(written))
    assert len(shown) > 100
    assert set(shown) - known - set(re.findall(r"\d+\.\d+", RULES)) == {"0.002", "0.0001"} & set(shown)


class Checker(html.parser.HTMLParser):
    """Collects what a page refers to and checks that its tags are balanced."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.tags, self.text = [], [], set(), []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_html_is_one_file_that_needs_nothing_else(written):
    text = (written / "supernet_training_report.html").read_text(encoding="utf-8")
    page = Checker()
    page.feed(text)
    assert not page.open and not page.tags & {"script", "link", "iframe", "object"}
    assert len(page.sources) == 8 and all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not re.search(r"https?://|url\(|@import", text)
    assert "Supernet training report: a&<b>" in page.text  # escaped, and so shown as it is


def test_both_files_say_the_same(written):
    page = Checker()
    page.feed((written / "supernet_training_report.html").read_text(encoding="utf-8"))
    cells = set(page.text)
    for line in markdown(written).splitlines():
        if line.startswith("| ") and "---" not in line:
            for cell in line.strip("| ").split(" | "):
                plain = re.sub(r"\\(\W|_)", r"\1", cell.replace("`", "").replace("**", ""))
                assert plain in cells or "`" in cell or "**" in cell or not plain, cell


def test_every_plot_is_in_the_folder_and_not_blank(written):
    linked = re.findall(r"\]\((report/\w+\.png)\)", markdown(written))
    assert len(linked) == 8 and {f"report/{path.name}" for path in (written / "report").iterdir()} == set(linked)
    for name in linked:
        with Image.open(str(written / name)) as image:
            assert image.width == 1100 and len(image.convert("RGB").getcolors(1 << 24)) > 50


def test_rewriting_replaces_and_leaves_nothing_behind(written):
    before = sorted(path.name for path in written.rglob("*"))
    write_report(written, now=SOON)
    assert sorted(path.name for path in written.rglob("*")) == before


@pytest.mark.parametrize(
    "details", [dict(epochs=0), dict(epochs=0, extra_steps=1), dict(epochs=1), dict(samples=False)]
)
def test_little_data_is_no_obstacle(tmp_path, details):
    folder = write_long_run(tmp_path / "run", **details)
    write_report(folder, now=SOON)
    assert ("eval_samples.npz" in markdown(folder)) == (not details.get("samples", True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_values_that_are_not_finite_are_gaps_in_the_plots(tmp_path, bad):
    with np.errstate(all="ignore"):
        folder = write_long_run(tmp_path / "run", epochs=8, means=lambda fraction: bad if fraction > 0.4 else 4.0)
    path = folder / "train_steps.csv"
    lines = path.read_text().splitlines(True)
    lines[-2] = ",".join(lines[-2].split(",")[:3] + ["nan", "nan", "inf", "nan"]) + "\n"
    path.write_text("".join(lines))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        write_report(folder, now=SOON)
    assert "Collapsed after it had learned" in markdown(folder)
    assert np.isfinite(plot_steps.step_curves(read_run(folder)).before[:-2]).all()


def test_a_damaged_file_keeps_the_older_report(tmp_path):
    folder = write_long_run(tmp_path / "run", epochs=0)
    write_report(folder, now=SOON)
    before = markdown(folder)
    (folder / "train_steps.csv").write_text("x\n")
    with pytest.raises(DataError, match=r"train_steps.csv: expected the header"):
        write_report(folder, now=SOON)
    assert markdown(folder) == before


def test_step_curves_are_statistics_of_the_steps(tmp_path):
    folder = write_long_run(tmp_path / "run", epochs=3, steps_per_epoch=211, extra_steps=17, clip_norms=1.0)
    run = read_run(folder)
    curves = plot_steps.step_curves(run)
    parts = 100 // 4
    steps = run.steps.numbers
    group = steps.step * parts // 211
    assert len(curves.at) == len(set(group)) and curves.at[-1] == (3 * 211 + 17) / 211
    for i in (0, 7, len(curves.at) - 1):
        mine = group == i
        assert curves.loss[i] == pytest.approx(steps.loss[mine].mean())
        assert curves.before[i] == pytest.approx(np.median(steps.grad_norm_before[mine]))
        assert curves.clip_share[i] == pytest.approx((steps.grad_norm_before[mine] > 5).mean())
        assert curves.lr[i] == steps.lr[mine][-1]


def test_each_sample_has_its_own_scales_shared_by_both_subnets(written):
    samples = read_run(written).samples
    error = plot_samples.errors(samples)
    by_hand = np.sqrt(((samples.prediction[1, 2, 5, 7] - samples.flow[2, 5, 7]) ** 2).sum())
    assert error[1, 2, 5, 7] == pytest.approx(by_hand)
    scales = plot_samples.flow_scales(samples)
    assert scales == sorted(scales) and len(set(scales)) == 3
    limits = plot_samples.error_scales(error)
    assert all(0.01 < (error[:, k] > limits[k]).mean() < 0.03 for k in range(3))


def test_two_hundred_epochs_take_a_few_seconds(tmp_path):
    folder = write_long_run(tmp_path / "run", epochs=200, steps_per_epoch=555, means=plateaued, status="completed")
    assert len((folder / "train_steps.csv").read_text().splitlines()) == 111001
    start = time.process_time()
    write_report(folder, now=SOON)
    assert time.process_time() - start < 8  # about 2 s of one core on an idle machine
    assert "step 111000 of 111000" in markdown(folder)


def test_command_line(tmp_path, capsys):
    folder = write_long_run(tmp_path / "run", epochs=0)
    assert report.main([str(folder), "--output", str(tmp_path / "elsewhere")]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "elsewhere" / f"supernet_training_report.{kind}") for kind in ("md", "html")
    ]
    assert not (folder / "supernet_training_report.md").exists()


def run_module(*arguments):
    root = Path(report.__file__).parent.parent
    environment = dict(os.environ, PYTHONPATH=str(root))
    return subprocess.run(
        [sys.executable] + list(arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, timeout=60
    )


def test_a_user_error_is_one_line_and_exit_code_2(tmp_path):
    done = run_module("-m", "edgeflownas.report", str(tmp_path / "typo"))
    assert done.returncode == 2 and done.stdout == b""
    assert done.stderr.decode() == f"error: {tmp_path / 'typo'}: expected a run folder, found nothing\n"


def test_neither_tensorflow_nor_a_display_nor_for_help_matplotlib_is_needed(tmp_path):
    folder = write_long_run(tmp_path / "run", epochs=2)
    code = (
        "import json, sys\n"
        "from edgeflownas import report\n"
        "early = sorted(name for name in ('matplotlib', 'tensorflow') if name in sys.modules)\n"
        f"report.main([{str(folder)!r}])\n"
        "late = sorted(name for name in ('matplotlib', 'matplotlib.pyplot', 'tensorflow') if name in "
        "sys.modules)\n"
        "print(json.dumps([early, late]))\n"
    )
    done = run_module("-c", code)
    assert json.loads(done.stdout.decode().splitlines()[-1]) == [[], ["matplotlib"]], done.stderr.decode()
