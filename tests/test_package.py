"""A built wheel and archive of sources work away from the checkout, are typed, and have one version."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mpc

ROOT = Path(__file__).parents[1]
ROOMS = ("craik", "envs", "mpc", "world_models")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Return a wheel that is built from the archive of sources, as an index would serve both."""
    pytest.importorskip("hatchling", reason="the extra dev has it")
    folder = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "hatchling", "build", "-d")
    subprocess.run([*build, str(folder), "-t", "sdist"], cwd=ROOT, check=True, capture_output=True, timeout=60)
    (archive,) = folder.glob("*.tar.gz")
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(folder)], check=True, timeout=60)
    sources = folder / archive.name.removesuffix(".tar.gz")
    subprocess.run([*build, str(folder), "-t", "wheel"], cwd=sources, check=True, capture_output=True, timeout=60)
    assert archive.stat().st_size < 20e6
    return next(folder.glob("*.whl"))


def test_the_wheel_has_every_module_and_the_marks_of_types(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"{room}/py.typed" for room in ROOMS} <= names
    modules = {str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules


def test_the_wheel_works_away_from_the_checkout(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}]\n"
        "import craik, gymnasium, mpc\n"
        "mpc.Agent\n"
        "for module in (mpc, craik.mpc, craik.envs, craik.world_models): print(module.__file__)\n"
        "print(craik.__version__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    *files, version = done.stdout.split()
    assert len(files) == 4 and all(file.startswith(str(tmp_path)) for file in files), done.stderr
    assert version == mpc.__version__ and version in wheel.name


def test_the_citation_has_the_version_of_the_package():
    assert re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE) == [mpc.__version__]
