"""A wheel built from the checkout works in an environment that has the dependencies and nothing of the checkout."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Folder of executables of a fresh environment with the wheel; the dependencies are lent by ours."""
    work = tmp_path_factory.mktemp("wheel")
    source = work / "checkout"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PACKAGE_FILES],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
    )
    for name in tracked.stdout.decode().split("\0")[:-1]:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, target, follow_symlinks=False)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", work, source]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = work.glob("*.whl")
    venv.create(work / "venv", symlinks=True, with_pip=True)
    executables = work / "venv" / "bin"
    subprocess.run([executables / "pip", "install", "--quiet", "--no-deps", wheel], check=True, capture_output=True)
    # A path file adds a folder, but runs nothing in it: the editable install of the checkout stays out of sight.
    site = next((work / "venv" / "lib").glob("python*/site-packages"))
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return executables


PACKAGE_FILES = ("pyproject.toml", "README.md", "LICENSE", "deeph_tracegrad", "preprocess", "inference")


def run(executable: Path, *arguments: object, cwd: Path) -> str:
    process = subprocess.run([executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_import_and_help(environment, tmp_path):
    code = "import deeph_tracegrad.preprocess.runs, deeph_tracegrad.inference.bands as bands; print(bands.__file__)"
    assert str(environment.parent) in run(environment / "python", "-c", code, cwd=tmp_path)
    assert "preprocess" in run(environment / "deeph-tracegrad", "--help", cwd=tmp_path)


def test_help_does_not_import_torch(environment, tmp_path):
    code = "import sys, deeph_tracegrad.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    run(environment / "python", "-c", code, cwd=tmp_path)


def test_no_other_packages_are_installed(environment):
    site = next((environment.parent / "lib").glob("python*/site-packages"))
    assert not (site / "preprocess").exists()
    assert not (site / "inference").exists()


def test_preprocess_and_bands(environment, tmp_path):
    runs = CHECKOUT / "tests" / "data" / "openmx" / "demo_a_00"
    run(environment / "deeph-tracegrad", "preprocess", runs, "--out", "dataset", cwd=tmp_path)
    run(environment / "deeph-tracegrad", "bands", runs, "--out", "bands", "--density", "10", cwd=tmp_path)
    assert (tmp_path / "dataset" / "dataset.json").is_file()
    assert (tmp_path / "bands.h5").is_file()
    assert (tmp_path / "bands.png").is_file()


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler")
def test_the_kernels_come_along(environment, tmp_path):
    imports = "import sys, torch; from deeph_tracegrad.nn.kernels.library import compiled"
    code = f"{imports}; sys.exit(not compiled(torch.ones(1)))"
    run(environment / "python", "-c", code, cwd=tmp_path)


@pytest.mark.parametrize("name", ["preprocess", "inference"])
def test_the_bare_folder_names_cannot_be_imported(name):
    process = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert process.returncode != 0
    assert f"import it as deeph_tracegrad.{name}" in process.stderr
