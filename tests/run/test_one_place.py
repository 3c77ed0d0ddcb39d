"""Each file name of the run folder and each column name is written in `edgeflownas/run/` only.

Looks at the string constants of every module outside it, parts of f-strings included. Docstrings and help texts may
say what they like.
"""

import ast
from pathlib import Path

import pytest

import edgeflownas
from edgeflownas.run import folder, rows

PACKAGE = Path(edgeflownas.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if PACKAGE / "run" not in path.parents)
FILES = {value for name, value in vars(folder).items() if name.isupper() and isinstance(value, str)}
ROWS = (rows.StepRow, rows.EvaluationRow, rows.SubnetRow, rows.TimingRow, rows.ScoreRow)
COLUMNS = {column for row in ROWS for column in row._fields}
# Arguments that hold text for people: `Parser(program, description, epilog)`, `add_argument(help=...)`, and the text
# of a key of the configuration.
TEXTS = {"help", "description", "epilog", "EPILOG"}
ALLOWED = {
    # Words that are also something else.
    "report": "a command, and the name of its module",
    "previous": "the field of a sign-off",
    "fairness_gap": "a field of the sampler's check file",
    "bn_recal_batches": "a key of the configuration",
    "num_samples": "a key of the configuration",
    "epoch": "a field of the manifest",
    "global_step": "a field of the manifest",
    "lr": "a field of the manifest",
    "step": "a field of the state in a checkpoint",
    "loss": "a plot's name",
    "parameters": "the label of an axis",
    "rank": "the title of a column that people read",
    "arch_code": "the title of a column that people read, and a key of the configuration",
    "space": "a field of the files that hold codes, and a key of the configuration",
}


def text_of(node):
    """The text of a string constant (`ast.Str` on Python 3.7); None of anything else."""
    value = node.value if isinstance(node, ast.Constant) else node.s if type(node).__name__ == "Str" else None
    return value if isinstance(value, str) else None


def documentation(tree):
    """The nodes of docstrings and help texts, and everything inside them."""
    found = set()

    def add(node):
        found.update(map(id, ast.walk(node)))

    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and text_of(node.value) is not None:
            add(node.value)
        if isinstance(node, ast.keyword) and node.arg in TEXTS:
            add(node.value)
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") in TEXTS for target in node.targets):
            add(node.value)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_opt":
            add(node.args[1])
    return found


def offences(source):
    """(line, constant) of each file name, and each column name, that is written out in a module."""
    tree = ast.parse(source)
    free, found = documentation(tree), []
    for node in ast.walk(tree):
        text = text_of(node)
        if text is not None and id(node) not in free:
            names_a_file = any(name in text if "." in name[1:] else name == text for name in FILES)
            names_a_column = text in COLUMNS or any(text == f"{name}_" for name in COLUMNS)
            if (names_a_file or names_a_column) and text not in ALLOWED:
                found.append((node.lineno, text))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_module_names_a_file_or_a_column(path):
    assert offences(path.read_text(encoding="utf-8")) == []


def test_the_names_are_known():
    assert {"train_manifest.json", "eval_samples.npz", "train.log", "tensorboard", "checkpoints"} <= FILES
    assert {"clip_share", "grad_norm_before", "input_wait_share", "mean_epe", "multiply_adds"} <= COLUMNS
    assert len(MODULES) > 60


@pytest.mark.parametrize(
    "source, caught",
    [
        ('run.numbers("clip_share")', "clip_share"),
        ('f"std_epe_{size}"', "std_epe_"),
        ('os.path.join(folder, "timing.csv")', "timing.csv"),
        ('f"{folder}/train.log of the run"', "/train.log of the run"),
        ('os.path.join(folder, "tensorboard")', "tensorboard"),
        ('parser.add_argument("--x", default="train_steps.csv", help="train_steps.csv")', "train_steps.csv"),
    ],
)
def test_a_name_that_is_written_out_is_found(source, caught):
    assert offences(source) == [(1, caught)]


def test_every_exception_is_needed():
    used = set()
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used |= {text_of(node) for node in ast.walk(tree)} & set(ALLOWED)
    assert used == set(ALLOWED) and set(ALLOWED) <= FILES | COLUMNS
