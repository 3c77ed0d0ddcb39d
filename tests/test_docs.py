"""Documents agree with the code: generated references are fresh, both READMEs give the same commands, links lead
somewhere."""

import os
import re
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DOCUMENTS = ["README.md", "README.zh-CN.md", "CONTRIBUTING.md"] + [
    os.path.join("docs", name) for name in sorted(os.listdir(os.path.join(ROOT, "docs"))) if name.endswith(".md")
]


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as handle:
        return handle.read()


def test_generated_references_are_fresh():
    environment = dict(os.environ, PYTHONPATH=ROOT)
    done = subprocess.run(
        [sys.executable, "scripts/generate_docs.py", "--check"], cwd=ROOT, env=environment, stderr=subprocess.PIPE
    )
    assert done.returncode == 0, done.stderr.decode()


def test_both_readmes_give_the_same_commands():
    def commands(text):
        return [
            line.split("  ")[0].rstrip()
            for block in re.findall(r"```bash\n(.*?)```", text, re.S)
            for line in block.splitlines()
        ]

    def rows(text):
        return re.findall(r"^\| `(python -m code[^`]*)` \| `([^`]*)` \|$", text, re.M)

    english, chinese = read("README.md"), read("README.zh-CN.md")
    assert commands(english) == commands(chinese) and len(commands(english)) > 5
    assert rows(english) == rows(chinese) and len(rows(english)) == 5


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_files(name):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", read(name)):
        if "://" not in target:
            assert os.path.exists(os.path.join(ROOT, os.path.dirname(name), target)), target


def test_commands_of_the_readme_name_modules_and_files_that_exist():
    for name in DOCUMENTS:
        text = read(name)
        for module in re.findall(r"python3? -m (edgeflownas[.\w]*|gates[.\w]*|benchmarks[.\w]*|tests[.\w]*)", text):
            path = os.path.join(ROOT, *module.split("."))
            assert os.path.exists(path + ".py") or os.path.exists(os.path.join(path, "__main__.py")), (name, module)
        for file in re.findall(r"(?:python|bash|sbatch) ((?:scripts|wrappers)/[\w./]+)", text):
            assert os.path.exists(os.path.join(ROOT, file)), (name, file)
