"""The documents are checked against the code: what is added to one must be added to the other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from crawler import options
from crawler.commands import failed, spool
from crawler.failures import Failure

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("crawler", "spiders", "pipelines", "extensions")
SPEAKING_UP = {"warning", "error", "exception", "critical", "log", "_complain"}


def log_templates() -> Iterator[str]:
    for package in PACKAGES:
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                    continue
                # logger.log() takes the level first.
                place = 1 if node.func.attr == "log" else 0
                texts = node.args[place : place + 1] if node.func.attr in SPEAKING_UP else []
                yield from (str(text.value) for text in texts if isinstance(text, ast.Constant))


def test_there_are_log_messages_to_check() -> None:
    assert len(set(log_templates())) > 10


@pytest.mark.parametrize("template", sorted(set(log_templates())))
def test_every_warning_and_error_is_explained_in_the_log_runbook(template: str) -> None:
    runbook = re.sub(r"\s+", " ", (REPOSITORY / "docs/logs.md").read_text(encoding="utf-8"))
    assert template in runbook, f"docs/logs.md lacks a line for: {template}"


@pytest.mark.parametrize("setting", options.SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_is_documented_with_what_is_allowed(setting: options.Setting[object]) -> None:
    page = (REPOSITORY / "docs/configuration.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `CRAWLER_{setting.name}` |")]
    assert setting.allowed in row
    assert setting.meaning in row
    if setting is not options.HOST_NAME and setting.default:
        assert f"| `{setting.default}` |" in row


@pytest.mark.parametrize("command", [failed, spool], ids=lambda command: command.__name__)
def test_every_action_of_a_command_is_in_the_readme_and_can_be_chosen(command: ModuleType) -> None:
    name = command.__name__.rpartition(".")[2]
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| `scrapy {name} .*", readme, re.MULTILINE)
    named = set(re.findall(r"[a-z]+", " ".join(row.split("|")[1] for row in rows)))
    assert set(command.ACTIONS) <= named
    assert sorted(command.ACTIONS) == sorted(command.Command.actions)


@pytest.mark.parametrize("failure", Failure, ids=lambda failure: failure.name)
def test_every_kind_of_failure_is_explained(failure: Failure) -> None:
    page = (REPOSITORY / "docs/failures.md").read_text(encoding="utf-8")
    assert f"\n| `{failure.kind}/{failure.reason}` |" in page


def test_every_link_between_documents_leads_somewhere() -> None:
    for page in [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
