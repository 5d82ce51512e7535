"""Settings from a file and the environment, beside the options: which one counts, and why.

An option counts before a variable, a variable before the file, the file before the default. The
file is TOML: a key for each option, and a table for each group's limits.

    port = 8005
    rate_limit = 600
    token_file = "tokens.txt"

    [groups.shop]
    max_speakers = 1000
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from service.settings import GroupLimits, ServiceError, Settings
from utils.arguments import CHECKS
from utils.environment import read_variable
from utils.errors import DatabaseError
from utils.speaker_names import clean_group
from voices.store import public_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "VOICEPRINT_"
"""Each option has a variable: this and its name in capitals."""

CONFIG_VARIABLE = "VOICEPRINT_CONFIG"

SECRETS = {"VOICEPRINT_TOKEN", "VOICEPRINT_KEY"}
"""Variables that no option and no file of settings can give: both could be read by others."""

SECRET_FILES = {"VOICEPRINT_DATABASE_FILE", "VOICEPRINT_KEY_FILE"}
"""Variables that name a file whose text is a secret."""

OPTIONS = {item.name: item for item in fields(Settings) if item.metadata}
"""The settings that options, variables and the file set."""

WORDS = {"1": True, "true": True, "yes": True, "on": True}
WORDS |= {"0": False, "false": False, "no": False, "off": False}
"""What a variable says for a switch."""

HIDDEN = "***"

_UNSET = object()


@dataclass
class ConfigFile:
    """What a file sets.

    Attributes:
        path: Where it is; None without one.
        values: Option -> value, checked.
        lines: Option -> number of its line.
        groups: Limits by group.
    """

    path: Path | None = None
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    groups: dict[str, GroupLimits] = field(default_factory=dict)


def read_config(path: str | None, environment: Mapping[str, str]) -> ConfigFile:
    """Reads the file of `--config`, or the variable's; nothing if neither names one.

    Raises:
        ServiceError: If it cannot be read, is no TOML, or has an unknown key or a wrong value.
    """
    name = path or environment.get(CONFIG_VARIABLE)
    if not name:
        return ConfigFile()
    file = ConfigFile(Path(name))
    try:
        text = Path(name).read_text(encoding="utf-8-sig")
        document = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ServiceError(f"{name}: cannot be read ({reason})") from error
    except tomllib.TOMLDecodeError as error:
        raise ServiceError(f"{name}: not TOML: {error}") from error
    for table, limits in _tables(document.pop("groups", {}), name, text).items():
        file.groups[table] = _limits(limits, name, text, table)
    for key, value in document.items():
        line = _line_of(text, key)
        where = f"{name}, line {line}: {key}"
        if key not in OPTIONS:
            raise ServiceError(
                f"{name}, line {line}: unknown setting {key!r}; serve.py --help lists the options"
            )
        file.values[key] = _from_toml(key, value, where)
        file.lines[key] = line
    return file


def apply_config(
    args: argparse.Namespace,
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    environment: Mapping[str, str],
    file: ConfigFile,
) -> dict[str, str]:
    """Sets the options that the command line leaves out.

    Args:
        args: The parsed options, changed in place.
        parser: What parsed them.
        argv: The command line.
        environment: The variables.
        file: The file's settings.

    Returns:
        Option -> where its value is from.

    Raises:
        ServiceError: If a variable has a wrong value.
    """
    given = _given(parser, argv)
    origins = {}
    for name in OPTIONS:
        variable = PREFIX + name.upper()
        if name in given:
            origins[name] = "option"
        elif text := _variable_text(variable, environment):
            setattr(args, name, _from_text(name, text, variable))
            origins[name] = variable
        elif name in file.values:
            setattr(args, name, file.values[name])
            origins[name] = f"{file.path}, line {file.lines[name]}"
        else:
            origins[name] = "default"
    return origins


def find_settings(
    path: str | None, environment: Mapping[str, str], names: Sequence[str]
) -> dict[str, Any]:
    """Returns what the environment and the file say of some options, beside any command line.

    Raises:
        ServiceError: If the file or a variable cannot be used.
    """
    found = dict(read_config(path, environment).values)
    for name in names:
        if text := _variable_text(PREFIX + name.upper(), environment):
            found[name] = _from_text(name, text, PREFIX + name.upper())
    return {name: found[name] for name in names if name in found}


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Returns the variables that look like settings and are none."""
    known = {PREFIX + name.upper() for name in OPTIONS} | SECRETS
    known |= SECRET_FILES | {CONFIG_VARIABLE}
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)


def describe(settings: Settings, origins: Mapping[str, str], environment: Mapping[str, str]) -> str:
    """Returns all settings as a file of settings, with where each is from, secrets hidden."""
    lines = []
    for name in OPTIONS:
        value = getattr(settings, name)
        if name == "database":
            value = public_name(value)
        shown = f"# {name} is not set" if value is None else f"{name} = {_to_toml(value)}"
        lines.append(f"{shown}  # {origins[name]}")
    for variable in sorted(SECRETS):
        names = {variable} | ({f"{variable}_FILE"} & SECRET_FILES)
        is_set = any(environment.get(name, "").strip() for name in names)
        lines.append(f"# {variable} is {f'set: {HIDDEN}' if is_set else 'not set'}")
    for group, limits in settings.groups.items():
        lines += ["", f"[groups.{group}]"]
        lines += [f"{key} = {value}" for key, value in vars(limits).items() if value is not None]
    return "\n".join(lines)


def _variable_text(variable: str, environment: Mapping[str, str]) -> str:
    """Returns the text of a variable, or of the file that holds it; empty if there is none."""
    if f"{variable}_FILE" in SECRET_FILES:
        return read_variable(variable, environment)
    return environment.get(variable, "").strip()


def _given(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> set[str]:
    """Returns the options that a command line names, with whatever value."""
    names = {action.dest for action in parser._actions}
    space = argparse.Namespace(**dict.fromkeys(names, _UNSET))
    parser.parse_args(argv, space)
    return {name for name in names if getattr(space, name, _UNSET) is not _UNSET}


def _from_text(name: str, text: str, where: str) -> Any:
    """Reads an option's value from a text, as the command line would."""
    if isinstance(OPTIONS[name].default, bool):
        if text.lower() not in WORDS:
            raise ServiceError(f"{where}: received {text!r}, expected true or false")
        return WORDS[text.lower()]
    choices = OPTIONS[name].metadata.get("choices")
    if choices and text not in choices:
        raise ServiceError(f"{where}: received {text!r}, expected {' or '.join(choices)}")
    check: Any = CHECKS.get(OPTIONS[name].metadata["check"], str)
    try:
        return check(text)
    except argparse.ArgumentTypeError as error:
        raise ServiceError(f"{where}: {error}") from error


def _from_toml(name: str, value: Any, where: str) -> Any:
    """Checks an option's value of the file."""
    if isinstance(OPTIONS[name].default, bool):
        if not isinstance(value, bool):
            raise ServiceError(f"{where}: received {value!r}, expected true or false")
        return value
    is_text = OPTIONS[name].metadata["check"] in ("", "path")
    kinds = (str,) if is_text else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        expected = "a text in quotes" if is_text else "a number"
        raise ServiceError(f"{where}: received {value!r}, expected {expected}")
    return _from_text(name, str(value), where)


def _tables(groups: Any, name: str, text: str) -> dict[str, dict[str, Any]]:
    """Checks that `groups` holds tables with names of groups."""
    if not isinstance(groups, dict):
        line = _line_of(text, "groups")
        raise ServiceError(f"{name}, line {line}: expected tables such as [groups.shop]")
    for group, limits in groups.items():
        if not isinstance(limits, dict):
            raise ServiceError(f"{name}: expected [groups.{group}] to be a table")
        try:
            clean_group(group)
        except DatabaseError as error:
            raise ServiceError(f"{name}: {error}") from error
    return groups


def _limits(table: Mapping[str, Any], name: str, text: str, group: str) -> GroupLimits:
    """Checks the limits of a group."""
    for key, value in table.items():
        where = f"{name}, line {_line_of(text, key, f'groups.{group}')}"
        known = {item.name for item in fields(GroupLimits)}
        if key not in known:
            raise ServiceError(
                f"{where}: unknown limit {key!r} of a group, expected {' or '.join(sorted(known))}"
            )
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ServiceError(
                f"{where}: {key}: received {value!r}, expected a whole number from 0 up"
            )
    return GroupLimits(**table)


def _line_of(text: str, key: str, table: str = "") -> int:
    """Returns the number of the line that sets a key; of the file's first if it is not found."""
    found = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+([^\]]+)\]", line):
            found = re.sub(r"[\s\"']", "", header[1])
        elif found == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line):
            return number
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"\s*\[+\s*[\"']?{re.escape(key)}\b", line):
            return number
    return 1


def _to_toml(value: Any) -> str:
    """Returns a value as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
