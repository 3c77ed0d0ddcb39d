"""The report on a run, or the comparison of several runs, from the files of their folders. Built on `reporting/`.

python -m edgeflownas.report RUN                          writes supernet_training_report.md and .html into RUN
python -m edgeflownas.report RUN1 RUN2 ... --output DIR   writes supernet_comparison.md and .html into DIR
"""

from typing import List, Optional

from edgeflownas.arguments import Parser
from edgeflownas.errors import run_cli
from edgeflownas.reporting.write import write_comparison, write_report
from edgeflownas.run.folder import find_run

__all__ = ["main", "write_comparison", "write_report"]

COMPARISON_FOLDER = "outputs/comparison"


def main(argv: Optional[List[str]] = None) -> int:
    """Writes the report or the comparison and prints its paths. UserError if a run's file is missing or damaged."""
    parser = Parser(
        "python -m edgeflownas.report",
        "Report on one run, or compare several: Markdown with plots, and one HTML file that contains everything. Reads "
        "only the files of the run folders; does not need TensorFlow.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, or an experiment's name")
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="folder to write into (default: the run's own folder; for a comparison " + COMPARISON_FOLDER + ")",
    )
    arguments = parser.parse_args(argv)
    runs = [find_run(name) for name in arguments.runs]
    if len(runs) == 1:
        path = write_report(runs[0], arguments.output)
    else:
        path = write_comparison(runs, arguments.output or COMPARISON_FOLDER)
    print("{}\n{}".format(path, path.with_suffix(".html")))
    return 0


if __name__ == "__main__":
    run_cli(main)
