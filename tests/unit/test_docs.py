"""What README and docs/ name exists: pages, anchors, commands, options, make targets, settings, modules."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import generated
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from deepred_ray import cli
from deepred_ray.config import Config, Section, load

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL = {"", "console", "bash", "sh", "shell"}
DIRECTIVE = re.compile(r"^```\{(settings|commands|modules)\} ?(\w*)\n```$", re.M)
TARGET = re.compile(r"^\(([\w-]+)\)=$", re.M)
FLAG = re.compile(r"--[a-z][\w.-]*\w")
SECTIONS = {name for name, field in Config.model_fields.items() if generated.section_of(field)}
# `ray.data` and the like are Ray's own names, not settings.
SETTING = re.compile(rf"(?<![\w./-])(?:{'|'.join(SECTIONS - {'ray'})})(?:\.[a-z_]+)+(?![\w./-])")
page_of = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def whole(page: Path) -> str:
    """A page's Markdown with what Sphinx would generate."""
    return DIRECTIVE.sub(lambda found: getattr(generated, found[1])(*filter(None, [found[2]])), page.read_text("utf-8"))


@cache
def tokens(page: Path) -> list[Token]:
    flat: list[Token] = []
    for token in MarkdownIt("commonmark").enable("table").parse(whole(page)):
        flat += [token, *(token.children or ())]
    return flat


@cache
def anchors(page: Path) -> set[str]:
    """As GitHub and MyST make them of headings, and those that the page sets itself."""
    parsed = tokens(page)
    titles = [after.content for token, after in pairwise(parsed) if token.type == "heading_open"]
    slugs = {re.sub(r"[^\w -]", "", title.replace("`", "").lower()).replace(" ", "-") for title in titles}
    return slugs | set(TARGET.findall(page.read_text("utf-8")))


@page_of
def test_links_lead_somewhere(page: Path) -> None:
    found = [
        str(token.attrs.get("href") or token.attrs.get("src")) for token in tokens(page) if token.type in ("link_open", "image")
    ]
    for link in found:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


def commands(page: Path) -> Iterator[list[str]]:
    """Commands in fenced blocks and in code within sentences, as words."""
    for token in tokens(page):
        if token.type == "fence" and token.info.strip() in SHELL:
            lines = token.content.replace("\\\n", " ").splitlines()
        elif token.type == "code_inline":
            lines = [token.content]
        else:
            continue
        for line in lines:
            try:
                words = shlex.split(line.removeprefix("$ "), comments=True)
            except ValueError:  # a quote that is open: no command
                continue
            # What stands before or behind another command.
            start = 0
            for end in [*(at for at, word in enumerate(words) if word in ("|", "&&", ";", "--")), len(words)]:
                if words[start:end]:
                    yield words[start:end]
                start = end + 1


@cache
def options_of(command: str) -> set[str]:
    return set(FLAG.findall(generated.help_of(command)))


def asked_of_deepred(words: list[str]) -> tuple[str, list[str]] | None:
    """Command and arguments, if `words` call the command line or an entry point in jobs/."""
    for at, word in enumerate(words):
        if word == "deepred" or word.endswith("/deepred"):
            return (words[at + 1], words[at + 2 :]) if words[at + 1 :] else None
        if job := re.fullmatch(r"(?:.*/)?jobs/(\w+)\.py", word):
            assert (ROOT / word).exists(), word
            return {"pipeline": "run"}.get(job[1], job[1]), words[at + 1 :]
    return None


@page_of
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in commands(page):
        asked = asked_of_deepred(words)
        if asked is None or asked[0].startswith("--") or not asked[0].islower():
            continue
        command, arguments = asked
        if command not in cli.STAGE_HELP | cli.TOOL_HELP:
            assert any(word.endswith(f"jobs/{command}.py") for word in words), words
            continue
        flags = {word.partition("=")[0] for word in arguments if word.startswith("--")}
        assert flags - options_of(command) == set(), words


@page_of
def test_make_targets_scripts_and_tests_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    for words in commands(page):
        if words[0] == "make":
            assert {word for word in words[1:] if re.fullmatch(r"[a-z-]+", word)} <= set(targets), words
        for word in words:
            if re.fullmatch(r"(?:benchmarks|deploy|examples|jobs|monitoring|scripts|tests)/[\w./-]+(?:::\w+)?", word):
                file, _, test = word.partition("::")
                assert (ROOT / file).exists(), word
                assert f"def {test}(" in (ROOT / file).read_text("utf-8") if test else True, word


def settings(model: type[Section], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = generated.section_of(field)
        yield from settings(inner, f"{prefix}{name}.") if inner else [prefix + name]
        if inner or field.annotation == dict[str, float]:
            yield prefix + name  # named as a whole


@page_of
def test_settings_that_a_page_names_exist(page: Path) -> None:
    known = set(settings(Config))
    flags = {f"--{name}".replace("_", "-") for name in known}
    flags |= {re.sub(r"([\w-]+)$", r"no-\1", flag) for flag in flags}
    for token in tokens(page):
        if token.type == "code_inline":
            for name in SETTING.findall(token.content):
                assert name in known or name.endswith((".py", ".toml", ".json")), name
            for flag in FLAG.findall(token.content):
                if flag.removeprefix("--").partition(".")[0] in SECTIONS and "." in flag:
                    assert flag in flags, flag
        if token.type == "fence" and token.info.strip() == "toml":
            values: dict[str, Any] = tomllib.loads(token.content)
            if values.keys() & Config.model_fields.keys():
                load(values, page.name)


def test_the_settings_page_has_every_setting_with_its_flags() -> None:
    listed = whole(ROOT / "docs" / "settings.md")
    named = re.findall(r"^`([\w.]+)`$", listed, re.M)
    leaves = [name for name in settings(Config) if name not in SECTIONS and not name.endswith(".resources")]
    assert sorted(named) == sorted(set(leaves))
    for section in SECTIONS - {"ray"}:
        told = set(FLAG.findall(" ".join(re.findall(r"^: (`--.*?`) ·", generated.settings(section), re.M))))
        assert len(told) >= 8
        assert told <= options_of(section)
    assert ": `--ids`, `--acquire.ids` · any number of: a whole number · default `[]` · *growth*" in listed
    assert ": `--acquire.resources.cpus` · a number · default `0.5` · *operational*" in listed


def test_the_readmes_tree_is_the_package() -> None:
    fences = [token.content for token in tokens(ROOT / "README.md") if token.type == "fence"]
    (tree,) = (content for content in fences if content.startswith("deepred_ray/\n"))
    named: dict[str, set[str]] = {}
    folder = ""
    for line in tree.splitlines():
        if found := re.match(r"(  )?([\w/]+)/(?: |$)", line):
            folder = f"deepred_ray/{found[2]}" if found[1] else found[2]
            assert (ROOT / folder).is_dir(), folder
        named.setdefault(folder, set()).update(re.findall(r"\w+\.py\b", line))
    for folder in ("deepred_ray", "deepred_ray/text", "deepred_ray/stages"):
        assert named[folder] == {file.name for file in (ROOT / folder).glob("*.py") if not file.name.startswith("__")}


def test_the_readme_is_short_and_knows_every_page_and_command() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(readme.splitlines()) <= 200
    pages = {page.name for page in PAGES[1:]} - {"index.md"}
    assert set(re.findall(r"\]\(docs/([\w-]+\.md)\)", readme)) == pages
    assert {word for words in commands(ROOT / "README.md") for word in words[:2]} >= cli.STAGE_HELP.keys() | cli.TOOL_HELP.keys()
