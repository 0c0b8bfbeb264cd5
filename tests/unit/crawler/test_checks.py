"""Our generic package names are found where ``crawler`` is, or CR-E001 says who took them."""

import importlib.metadata
import subprocess
import sys
import zipfile
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from crawler import checks

PROJECT = Path(__file__).parents[3]
OURS = ("crawler", "spiders", "pipelines", "extensions")

# As Scrapy does with the project folder, and scrapyd with an egg: at the end of the path.
REPORT = """
import sys
import zipfile
sys.path.append(sys.argv[1])
from crawler import checks
for finding in checks.run():
    print(finding.id, finding.message, finding.hint, sep="|")
"""


def spec(name: str, parent: str) -> ModuleSpec:
    folder = f"{parent}/{name}"
    found = ModuleSpec(name, None, origin=f"{folder}/__init__.py", is_package=True)
    found.submodule_search_locations = [folder]
    return found


def plant(folder: Path, name: str) -> Path:
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    return package


def report(project: Path, *, foreign: Path, cwd: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", REPORT, str(project)],
        cwd=cwd,
        env={"PYTHONPATH": str(foreign), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_all_is_well_here() -> None:
    assert checks.run() == []


def test_all_is_well_inside_an_egg() -> None:
    egg = "/srv/eggs/data_crawler/1.egg"
    assert checks.run(lambda name: spec(name, egg)) == []


def test_names_the_package_that_is_elsewhere() -> None:
    places = dict.fromkeys(OURS, "/srv/ours") | {"extensions": "/usr/lib/theirs"}
    [finding] = checks.run(lambda name: spec(name, places[name]))
    assert finding.id == "CR-E001"
    assert "/usr/lib/theirs/extensions/__init__.py" in finding.message
    assert "/srv/ours/crawler/__init__.py" in finding.message
    assert "pip show -f" in finding.hint


def test_names_the_package_that_is_nowhere() -> None:
    [finding] = checks.run(lambda name: None if name == "spiders" else spec(name, "/srv/ours"))
    assert "'spiders' is nowhere on the import path" in finding.message


def test_a_namespace_and_a_plain_module_are_not_ours() -> None:
    namespace = ModuleSpec("pipelines", None, is_package=True)
    namespace.submodule_search_locations = ["/srv/ours/pipelines"]
    module = ModuleSpec("extensions", None, origin="/srv/ours/extensions.py")
    found = {
        "crawler": spec("crawler", "/srv/ours"),
        "spiders": spec("spiders", "/srv/ours"),
        "pipelines": namespace,
        "extensions": module,
    }
    findings = checks.run(found.__getitem__)
    assert [finding.id for finding in findings] == ["CR-E001", "CR-E001"]
    assert "namespace without __init__.py in /srv/ours/pipelines" in findings[0].message
    assert "/srv/ours/extensions.py" in findings[1].message


@pytest.mark.parametrize("error", [ImportError("broken"), ValueError("no spec")])
def test_a_failing_finder_is_a_finding_not_an_error(error: Exception) -> None:
    def find(name: str) -> ModuleSpec | None:
        if name == "extensions":
            raise error
        return spec(name, "/srv/ours")

    assert [finding.id for finding in checks.run(find)] == ["CR-E001"]


def test_an_installed_extensions_package_beside_a_checkout(tmp_path: Path) -> None:
    foreign = plant(tmp_path / "site-packages", "extensions")
    [line] = report(PROJECT, foreign=foreign.parent, cwd=tmp_path)
    assert line.startswith("CR-E001|package 'extensions' is ")
    assert str(foreign / "__init__.py") in line
    assert str(PROJECT / "crawler" / "__init__.py") in line


def test_an_installed_extensions_package_before_an_egg(tmp_path: Path) -> None:
    egg = tmp_path / "data_crawler.egg"
    with zipfile.ZipFile(egg, "w") as archive:
        for name in OURS:
            archive.writestr(f"{name}/__init__.py", "")
        archive.write(PROJECT / "crawler" / "checks.py", "crawler/checks.py")
    assert report(egg, foreign=tmp_path / "none", cwd=tmp_path) == []
    foreign = plant(tmp_path / "site-packages", "extensions")
    [line] = report(egg, foreign=foreign.parent, cwd=tmp_path)
    assert str(foreign / "__init__.py") in line
    assert str(egg / "crawler" / "__init__.py") in line


def test_nothing_else_in_this_environment_provides_our_names() -> None:
    providers = importlib.metadata.packages_distributions()
    for name in OURS:
        assert set(providers.get(name, [])) <= {"data-crawler"}
