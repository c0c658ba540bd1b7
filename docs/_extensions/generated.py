"""What the pages say of settings, commands and modules, made from the code: it cannot grow old.

Directives, each of which puts Markdown in its place:
  {settings} SECTION   the settings of one section of config.py; without a section, those of the whole run
  {commands} tools     the help of every command that is no stage; with `stages`, what a stage's command takes besides settings
  {modules}            the package's files, each with the first sentence of its docstring
"""

import ast
import contextlib
import io
import os
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from unittest.mock import patch

from pydantic.fields import FieldInfo

from deepred_ray import cli
from deepred_ray.config import Config, Section

PACKAGE = Path(cli.__file__).parent
WORDS = {str: "text", int: "a whole number", float: "a number", bool: "yes or no"}


def settings(section: str = "") -> str:
    """A definition list of a section's settings: name, flags, type, default, kind and meaning of each.

    Raises:
        KeyError: config.py has no such section.
    """
    model = Config if not section else section_of(Config.model_fields[section])
    if model is None:
        raise KeyError(section)
    return "\n".join(entries(model, f"{section}." if section else ""))


def entries(model: type[Section], prefix: str) -> list[str]:
    lines: list[str] = []
    for name, field in model.model_fields.items():
        inner = section_of(field)
        if inner is not None:
            if prefix:  # a section's own page has the sections of the whole run
                lines += entries(inner, f"{prefix}{name}.")
            continue
        kind = field.json_schema_extra["kind"] if isinstance(field.json_schema_extra, dict) else ""
        default = default_of(model, name, field, prefix)
        lines += [
            f"`{prefix}{name}`",
            f": {', '.join(f'`{flag}`' for flag in flags(prefix, name, field))} · {words(field.annotation)} · {default} · *{kind}*",
            "",
            f"  {' '.join((field.description or '').split())}",
            "",
        ]
    return lines


def section_of(field: FieldInfo) -> type[Section] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def default_of(model: type[Section], name: str, field: FieldInfo, prefix: str) -> str:
    """The default as TOML would have it. A section inside a section may have defaults of its own there."""
    value: Any = Config()
    for part in f"{prefix}{name}".split("."):
        value = getattr(value, part)
    if value is None:
        return "unset"
    return f"default `{toml(value)}`"


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(toml(item) for item in value)}]"
    return "{}" if value == {} else str(value)


def flags(prefix: str, name: str, field: FieldInfo) -> list[str]:
    """The flags of a setting: the short one first, where there is one."""
    short = [alias for extra in field.metadata for alias in getattr(extra, "aliases", None) or ()]
    return [*short, f"--{prefix}{name}".replace("_", "-")]


def words(kind: Any) -> str:
    """A type in words, such as `text or unset`."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return words(inside[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inside)
    if origin in (Union, types.UnionType):
        return " or ".join(words(item) for item in inside if item is not type(None))
    if origin is tuple:
        return f"any number of: {words(inside[0])}" if inside[-1] is Ellipsis else f"{len(inside)} of: {words(inside[0])}"
    if origin is dict:
        return f"{words(inside[1])} for each name"
    return WORDS[kind]


def commands(kind: str) -> str:
    """The help of the commands: of tools whole, of stages what is no setting."""
    if kind == "tools":
        return "\n".join(f"## {name}\n\n```text\n{help_of(name)}\n```\n" for name in cli.TOOL_HELP)
    return "\n".join(f"`deepred {name}`\n: {text}\n" for name, text in cli.STAGE_HELP.items())


def help_of(command: str) -> str:
    """What `deepred COMMAND --help` prints at 100 columns."""
    printed = io.StringIO()
    with patch.dict(os.environ, {"COLUMNS": "100"}), contextlib.redirect_stdout(printed):
        cli.main([command, "--help"])
    return printed.getvalue().rstrip()


def modules() -> str:
    """The package's modules, folder by folder, each with the first sentence of its docstring."""
    lines = []
    for folder in (PACKAGE, PACKAGE / "text", PACKAGE / "stages"):
        inside = folder.relative_to(PACKAGE.parent).as_posix()
        lines += [f"`{inside}/`", f": {sentence(folder / '__init__.py')}", ""]
        for file in sorted(folder.glob("*.py")):
            if file.stem not in ("__init__", "__main__"):
                lines.append(f"  - `{file.name}`: {sentence(file)}")
        lines.append("")
    return "\n".join(lines)


def sentence(file: Path) -> str:
    """The first paragraph of a module's docstring."""
    told = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    return " ".join(told.partition("\n\n")[0].split())


def setup(app: Any) -> dict[str, Any]:
    from sphinx.util.docutils import SphinxDirective

    def directive(make: Any) -> type[SphinxDirective]:
        class Generated(SphinxDirective):
            optional_arguments = 1

            def run(self) -> list[Any]:
                # Sphinx builds a page again when what it was made of has changed.
                for file in PACKAGE.rglob("*.py"):
                    self.env.note_dependency(str(file))
                return self.parse_text_to_nodes(make(*self.arguments), allow_section_headings=True)

        return Generated

    app.add_directive("settings", directive(settings))
    app.add_directive("commands", directive(commands))
    app.add_directive("modules", directive(modules))
    return {"parallel_read_safe": True}
