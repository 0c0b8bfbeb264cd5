"""What is shipped runs: from a wheel and from an egg, in an empty folder, by console script.

Under pytest the checkout is on the import path; these run as production does, where it is not.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

PROJECT = Path(__file__).parents[2]
PACKAGES = ("crawler", "spiders", "pipelines", "extensions")
SPIDERS = sorted(file.stem for file in (PROJECT / "spiders").glob("[a-z]*.py"))
SHIPPED_FILES = ("setup.py", "scrapy.cfg", "pyproject.toml")
DEPENDENCIES = sysconfig.get_path("purelib")
SCRIPTS = Path(sysconfig.get_path("scripts"))


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Given a command and its only variables, return what it printed; fail with all it said."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), "LANG": "C.UTF-8", **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{command} in {cwd}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a clone has it, so that building leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for name in SHIPPED_FILES:
        shutil.copy(PROJECT / name, copy)
    for name in (*PACKAGES, "demo", "tests"):
        shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    run(sys.executable, "-m", "pip", "wheel", *options, "-w", folder, source, cwd=folder)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def egg(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The egg as ``scrapyd-deploy`` makes it, where scrapyd would have stored it."""
    folder = tmp_path_factory.mktemp("scrapyd")
    place = folder / "eggs" / "data_crawler" / "1.egg"
    place.parent.mkdir(parents=True)
    # It leaves its work folder behind.
    run(SCRIPTS / "scrapyd-deploy", "--build-egg", place, cwd=source, TMPDIR=str(folder))
    return place


def shipped(archive: Path) -> set[str]:
    with zipfile.ZipFile(archive) as opened:
        return set(opened.namelist())


@pytest.mark.parametrize("kind", ["wheel", "egg"])
def test_ships_the_four_packages_and_their_data(kind: str, request: pytest.FixtureRequest) -> None:
    names = shipped(request.getfixturevalue(kind))
    own = {name.split("/")[0] for name in names if "/" in name}
    assert {top for top in own if not top.endswith((".dist-info", "EGG-INFO"))} == set(PACKAGES)
    wanted = {
        path.relative_to(PROJECT).as_posix()
        for package in PACKAGES
        for pattern in ("*.py", "delivery/schema/*.sql", "templates/**/*.tmpl")
        for path in (PROJECT / package).rglob(pattern)
    }
    assert any(name.endswith(".sql") for name in wanted)
    assert not wanted - names


def test_lists_the_spiders_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    home, empty = tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    venv.create(home, symlinks=True, with_pip=False)
    python = home / "bin" / "python"
    options = ("--quiet", "--no-deps", "--no-index", "--no-compile")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, cwd=empty)
    # The dependencies are those of this environment, after our own: nothing is downloaded.
    [site] = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{DEPENDENCIES}\n")
    script = home / "bin" / "scrapy"
    body = (SCRIPTS / "scrapy").read_text().split("\n", 1)[1]
    script.write_text(f"#!{python}\n{body}")
    script.chmod(0o755)

    listed = run(script, "list", cwd=empty, SCRAPY_SETTINGS_MODULE="crawler.settings")
    assert listed.split() == SPIDERS

    where = "from crawler import checks; print(checks.__file__, checks.run())"
    assert run(python, "-P", "-c", where, cwd=empty).split() == [
        str(site / "crawler" / "checks.py"),
        "[]",
    ]


def test_lists_the_spiders_from_an_egg_as_scrapyd_does(egg: Path) -> None:
    folder = egg.parents[2]
    listed = run(
        *(sys.executable, "-m", "scrapyd.runner", "list"),
        cwd=folder,
        SCRAPY_PROJECT="data_crawler",
        SCRAPYD_EGG_VERSION="1",
        PYTHONSAFEPATH="1",
    )
    assert listed.split() == SPIDERS


def test_reads_its_schema_inside_an_egg(egg: Path) -> None:
    read = (
        "import sys; sys.path.append(sys.argv[1]);"
        "from importlib.resources import files; from crawler import checks;"
        "texts = [f.read_text() for f in files('crawler.delivery').joinpath('schema').iterdir()];"
        "print(checks.run(), sum('CREATE TABLE' in text for text in texts) > 0)"
    )
    printed = run(sys.executable, "-P", "-c", read, egg, cwd=egg.parent)
    assert printed.split() == ["[]", "True"]
