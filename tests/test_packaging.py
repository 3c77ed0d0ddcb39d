"""The package builds, versions are locked, layers cover every module, entry files work from anywhere."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ["3.7", "3.9", "3.10", "3.11", "3.12", "3.13"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCES = sorted(
    path
    for folder in ("edgeflownas", "gates", "tests", "benchmarks", "wrappers", "scripts")
    for path in (ROOT / folder).rglob("*.py")
)
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "edgeflownas").rglob("*.py")
    if path.name != "__init__.py"
)
LOCK = [
    Requirement(line)
    for line in (ROOT / "constraints/versions.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


def environment(python, extra=""):
    """What a requirement's marker sees on CPython `python` on Linux."""
    return {
        "python_version": python,
        "python_full_version": python + ".1",
        "sys_platform": "linux",
        "extra": extra,
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
    }


def applies(requirement, python):
    return requirement.marker is None or requirement.marker.evaluate(environment(python))


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_is_python_37(path):
    """On Python 3.7 the compiler itself is the judge; later ones are asked to read it as 3.7."""
    newer = {} if sys.version_info < (3, 8) else {"feature_version": (3, 7)}
    ast.parse(path.read_text(encoding="utf-8"), filename=str(path), **newer)


@pytest.mark.skipif(sys.version_info < (3, 8), reason="the compiler of Python 3.7 needs no such check")
def test_the_syntax_check_sees_newer_syntax():
    with pytest.raises(SyntaxError):
        ast.parse("if (n := 3): pass", feature_version=(3, 7))


@pytest.mark.parametrize("python", PYTHONS)
def test_lock_pins_every_requirement_once(python):
    """Each package has exactly one exact version per Python, and it satisfies pyproject.toml."""
    pins = {}
    for pin in LOCK:
        if applies(pin, python):
            assert normal(pin.name) not in pins, f"{pin.name} is pinned twice on Python {python}"
            (version,) = pin.specifier
            assert version.operator == "=="
            pins[normal(pin.name)] = version.version
    extras = PROJECT["project"]["optional-dependencies"].values()
    for text in PROJECT["project"]["dependencies"] + [item for extra in extras for item in extra]:
        wanted = Requirement(text)
        if applies(wanted, python):
            assert normal(wanted.name) in pins, f"{text} is not locked on Python {python}"
            assert wanted.specifier.contains(pins[normal(wanted.name)]), (text, pins[normal(wanted.name)])


def test_each_python_gets_one_tensorflow_with_the_extras_of_tox():
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(str(ROOT / "tox.ini"), encoding="utf-8")
    extras = re.search(r"-e \.\[([\w,]+)\]", tox["testenv"]["deps"]).group(1).split(",")
    for python in PYTHONS:
        names = [Requirement(text) for extra in extras for text in PROJECT["project"]["optional-dependencies"][extra]]
        tensorflow = [str(each.name) for each in names if "tensorflow" in each.name and applies(each, python)]
        assert tensorflow == ["tensorflow-gpu" if python == "3.7" else "tensorflow"]


def test_tox_default_list_skips_nothing():
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(str(ROOT / "tox.ini"), encoding="utf-8")
    assert tox["tox"]["env_list"].split(", ") == ["lint", "tests", "gate2", "tests-tf2", "gates-tf2"]
    assert tox["tox"]["skip_missing_interpreters"] == "false"
    assert "ignore_outcome" not in (ROOT / "tox.ini").read_text(encoding="utf-8")


def test_tox_selects_pyenvs_python_before_anything_looks_for_one():
    """A value with `{env_...}` makes tox look for the interpreter before PYENV_VERSION is set: 1.15 goes untested."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(str(ROOT / "tox.ini"), encoding="utf-8")
    assert "PYENV_VERSION = 3.7:" in tox["testenv"]["set_env"] and "{" not in tox["testenv"]["set_env"]


def test_the_same_tensorflow_everywhere():
    """The lock, the GPU image's base and the extras name one release of TensorFlow 1."""
    (pin,) = [pin for pin in LOCK if pin.name == "tensorflow-gpu"]
    version = str(pin.specifier).lstrip("=")
    assert "tensorflow-gpu==" + version in str(PROJECT["project"]["optional-dependencies"]["gpu"])
    assert f"tensorflow/tensorflow:{version}-gpu\n" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert conda["name"] == "tf_work_hpc" and "python=3.7" in conda["dependencies"]
    assert conda["dependencies"][-1] == {"pip": ["-c constraints/versions.txt", "-e .[gpu,test]"]}


def test_every_module_has_a_layer():
    """A module that the layers contract does not know could import anything."""
    (contract,) = [each for each in PROJECT["tool"]["importlinter"]["contracts"] if each["type"] == "layers"]
    layered = [f"edgeflownas.{name}" for layer in contract["layers"] for name in re.findall(r"\w+", layer)]
    for module in MODULES:
        assert any(module == name or module.startswith(name + ".") for name in layered), module + " is in no layer"
    for name in layered + PROJECT["tool"]["importlinter"]["contracts"][2]["source_modules"]:
        assert any(module == name or module.startswith(name + ".") for module in MODULES), name + " does not exist"
    for path in PROJECT["tool"]["mypy"]["files"]:
        assert (ROOT / path).exists(), path + " does not exist"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built by the installed setuptools from a copy: building leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(str(ROOT / name), str(folder))
    shutil.copytree(
        str(ROOT / "edgeflownas"), str(folder / "edgeflownas"), ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(str(ROOT / "configs"), str(folder / "configs"))
    (folder / "gates").mkdir()  # a neighbour that must stay outside
    (folder / "gates" / "__init__.py").write_text("")
    subprocess.run(
        [sys.executable, "-c", "from setuptools import build_meta; build_meta.build_wheel('.')"],
        cwd=str(folder),
        check=True,
        stdout=subprocess.PIPE,
    )
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(str(path))


def test_wheel_holds_the_package_and_nothing_else(wheel):
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "edgeflownas").rglob("*") if path.is_file()}
    configurations = {"edgeflownas/configs/" + path.name for path in (ROOT / "configs").iterdir()}
    assert files == {name for name in package if not name.endswith(".pyc")} | configurations
    assert any(name.endswith("LICENSE") for name in wheel.namelist())


def test_an_unpacked_wheel_finds_its_configurations_by_name(wheel, tmp_path):
    """Runs outside any checkout, as its help describes."""
    wheel.extractall(str(tmp_path / "installed"))
    for name in sorted(
        path.stem for path in (ROOT / "configs").glob("supernet_*.yaml")
    ):  # the others are plans of studies
        command = [sys.executable, "-m", "edgeflownas", "train", "--config", name, "--dry_run"]
        environment = dict(os.environ, PYTHONPATH=str(tmp_path / "installed"))
        done = subprocess.run(
            command, cwd=str(tmp_path), env=environment, stdout=subprocess.PIPE, universal_newlines=True
        )
        assert done.returncode == 0
        assert str(tmp_path / "installed" / "edgeflownas" / "configs" / (name + ".yaml")) in done.stdout


def test_wheel_installs_the_command(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "edgeflownas = edgeflownas.__main__:main" in wheel.read(name).decode()


def plant_package(folder, mark):
    """A package `edgeflownas` that only tells where it came from and what it was given."""
    (folder / "edgeflownas").mkdir(parents=True)
    (folder / "edgeflownas" / "__init__.py").write_text("")
    (folder / "edgeflownas" / "train_supernet.py").write_text(
        f"import sys\nif __name__ == '__main__':\n    print({mark!r}, sys.argv[1:])\n    sys.exit(7)\n"
    )


def test_wrapper_runs_its_own_checkout_from_any_folder(tmp_path):
    """Neither the package in the current folder nor an installed one may be used; here both are decoys."""
    plant_package(tmp_path / "checkout", "own")
    plant_package(tmp_path / "elsewhere", "decoy")
    plant_package(tmp_path / "installed", "decoy")
    (tmp_path / "checkout" / "wrappers").mkdir()
    wrapper = shutil.copy(str(ROOT / "wrappers/run_supernet_train.py"), str(tmp_path / "checkout" / "wrappers"))
    done = subprocess.run(
        [sys.executable, wrapper, "--lr", "1e-4"],
        cwd=str(tmp_path / "elsewhere"),
        stdout=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=str(tmp_path / "installed")),
        universal_newlines=True,
    )
    assert (done.returncode, done.stdout) == (7, "own ['--lr', '1e-4']\n")


@pytest.mark.parametrize("status", [0, 3])
def test_ci_exits_with_toxs_code(tmp_path, status):
    """The real .ci/run in a bare folder, with a `python3` whose venv holds a `tox` that exits with `status`."""
    (tmp_path / ".ci").mkdir()
    run = shutil.copy(str(ROOT / ".ci/run"), str(tmp_path / ".ci"))
    assert os.access(run, os.X_OK)
    fake = tmp_path / "bin" / "python3"
    fake.parent.mkdir()
    fake.write_text(
        "#!/usr/bin/env bash\n"
        'if [ "$2" = venv ]; then mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; exit 0; fi\n'
        f'if [ "$2" = tox ]; then echo "tox in $PWD"; exit {status}; fi\n'
    )
    fake.chmod(0o755)
    done = subprocess.run(
        ["bash", run],
        stdout=subprocess.PIPE,
        universal_newlines=True,
        cwd="/",
        env=dict(os.environ, PATH="{}:{}".format(fake.parent, os.environ["PATH"])),
    )
    assert (done.returncode, done.stdout) == (status, f"tox in {tmp_path.resolve()}\n")
