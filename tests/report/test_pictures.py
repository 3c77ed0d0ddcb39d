"""The figures' content, checked before they become PNGs; and names that other programs would interpret."""

import re

import numpy as np
import pytest
from pretended_run import write_long_run

from edgeflownas.reporting import canvas, plot_compare, plot_samples, plot_steps, plots
from edgeflownas.reporting.document import Bullets, Grid, Heading, Paragraph, VerdictBox, to_html, to_markdown
from edgeflownas.reporting.write import write_comparison
from edgeflownas.run.read import read_run

NAMES = ["cost$a_$b", "p$50%$", "_warmup", "a|b", "<b>*x*", "\u914d\u7f6e"]


@pytest.fixture
def figures(monkeypatch):
    """Makes drawing functions return their drawn figure instead of a PNG."""

    def keep(figure):
        canvas.png(figure)
        return figure

    for module in (plots, plot_steps, plot_compare, plot_samples):
        monkeypatch.setattr(module, "png", keep)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    return read_run(write_long_run(tmp_path_factory.mktemp("runs") / "long", epochs=120))


def test_the_second_half_sets_the_scale_of_the_subnets(figures, long_run):
    figure = plots.subnet_curves(long_run)
    late = long_run.subnets.epe[60:]
    low, high = figure.axes[0].get_ylim()
    assert low < late.min() and late.max() < high < long_run.subnets.epe[0].min()
    assert (high - low) < 1.2 * (late.max() - late.min())


def test_ranks_of_a_long_run_are_thinned_and_the_middle_is_faint(figures, long_run):
    lines = plots.ranks(long_run, []).axes[0].lines
    assert all(len(line.get_xdata()) <= 15 for line in lines) and lines[0].get_xdata()[-1] == 120
    assert [line.get_alpha() for line in lines] == [1.0] * 3 + [0.35] * 6 + [1.0] * 3


def test_curves_of_the_comparison_keep_off_the_upper_edge(figures, long_run):
    figure = plot_compare.accuracy([("a", long_run)])
    for axis in figure.axes:
        highest = max(float(np.max(line.get_ydata())) for line in axis.lines)
        assert axis.get_ylim()[0] == 0 and axis.get_ylim()[1] > 1.04 * highest


def test_an_epoch_that_was_only_evaluated_draws_without_a_warning(tmp_path, recwarn):
    """A resume at an evaluation trains no cycle of that epoch, so its timing is 0."""
    folder = write_long_run(tmp_path / "run", epochs=1)
    path = folder / "timing.csv"
    header, row = path.read_text().splitlines()
    zero = ("train_seconds", "cycles_per_second", "input_wait_share")
    cells = ["0.0" if name in zero else cell for name, cell in zip(header.split(","), row.split(","))]
    path.write_text(f"{header}\n{','.join(cells)}\n")
    assert plot_steps.throughput(read_run(folder))[:4] == b"\x89PNG"
    assert [str(warning.message) for warning in recwarn] == []


def test_the_legend_names_only_what_is_drawn(figures, tmp_path, long_run):
    short = read_run(write_long_run(tmp_path / "short", epochs=1))
    for run, band in ((short, False), (long_run, True)):
        for draw in (plot_steps.loss, plot_steps.gradient):
            texts = [
                text.get_text() for text in draw(run, plot_steps.step_curves(run)).axes[0].get_legend().get_texts()
            ]
            assert any("5 to 95%" in text for text in texts) == band


def test_samples_show_both_frames(figures, long_run):
    figure = plot_samples.strip(long_run.samples)
    images = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    np.testing.assert_array_equal(images[0], long_run.samples.images[0, :, :, :3])
    np.testing.assert_array_equal(images[1], long_run.samples.images[0, :, :, 3:])


def test_names_are_drawn_letter_by_letter_or_by_number(figures, long_run):
    figure = plot_compare.accuracy([(name, long_run) for name in NAMES])
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(shown) == len(NAMES)  # none is left out
    assert [text.strip().replace(r"\$", "$") for text in shown[:5]] == NAMES[:5]
    assert shown[5] in (NAMES[5], "run 6")  # by number where no font has the letters
    for text in figure.legends[0].get_texts():
        assert text._preprocess_math(text.get_text())[1] is False


def test_runs_of_any_name_are_compared(tmp_path):
    folders = [write_long_run(tmp_path / str(i), epochs=2, name=name) for i, name in enumerate(NAMES)]
    page = write_comparison(folders, tmp_path / "out").read_text(encoding="utf-8")
    for line in page.splitlines():
        if line.startswith("| key |"):
            assert len(re.findall(r"(?<!\\)\|", line)) == len(NAMES) + 2


@pytest.mark.parametrize(
    "text, want",
    [
        ("_a_ and b_c", r"\_a\_ and b_c"),
        ("cost$a$", r"cost\$a\$"),
        ("*x* but **bold**", r"\*x\* but **bold**"),
        ("`_a_ $x$` stays", "`_a_ $x$` stays"),
        ("<b> [x](y)", r"\<b> \[x\](y)"),
    ],
)
def test_markdown_takes_names_literally(text, want):
    parts = [Heading(text), Paragraph(text), Bullets([text]), VerdictBox("good", text, [("good", text, text)]),
             Grid([text], [[text]])]  # fmt: skip
    assert to_markdown(text, parts, "x").count(want) == 9


def test_a_pipe_breaks_no_table():
    assert to_markdown("t", [Grid(["a|b"], [["c|d"]])], "x").endswith("| a\\|b |\n| --- |\n| c\\|d |\n")


def test_pairs_of_a_wide_table_are_marked_for_narrow_pages():
    assert '<table class="pairs">' in to_html("t", [Grid(["a"], [["b"]], pairs=True)])
    assert "<table>" in to_html("t", [Grid(["a"], [["b"]])])


def test_one_name_alone():
    assert canvas.label("plain", "run 1") == "plain" and len(canvas.label("x" * 99, "run 1")) == 28


def test_synthetic_samples_are_called_so(tmp_path):
    from edgeflownas.reporting import facts

    run = read_run(write_long_run(tmp_path / "a", epochs=2))
    assert facts._data(run)[0] == "good" and "FC2_test" in facts.data_source(run)
    run.manifest["dataset"]["source"] = "synthetic"
    tone, _, text = facts._data(run)
    assert tone == "open" and "synthetic samples, which are not FC2" in text and "good for ranking" not in text


@pytest.mark.parametrize("words", ["--max_epochs 1", "--max_steps=30", "--max_steps 4 --max_epochs 2 --unsigned", ""])
def test_the_advised_command_is_not_the_one_that_stops_early(tmp_path, words):
    from edgeflownas.reporting import facts

    run = read_run(write_long_run(tmp_path / "a", epochs=2, status="interrupted"))
    run.manifest.pop("resume_command", None)
    run.manifest["command"] = " ".join(f"python -m edgeflownas.train_supernet {words}".split())
    advised = facts.resume_command(run).split()
    assert advised[-1] == "--resume" and not any(word.startswith("--max") for word in advised)
    assert ("--unsigned" in advised) == ("--unsigned" in words)
    run.manifest["resume_command"] = "cd /x && python -m edgeflownas.train_supernet --resume"
    assert facts.resume_command(run) == run.manifest["resume_command"]
