"""Loads a TOML configuration file: resolves ``env:`` and ``file:`` references, validates it, and reports all errors together."""

import os
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.config.fields import Section
from gateway.errors import ConfigError, ConfigProblem

SettingsT = TypeVar("SettingsT", bound=Section)

_REFERENCES = {"upstream": "upstreams", "methods": "methods"}
"""Members of a route that refer to a table of the file, and the section that contains those tables."""


class Raw(NamedTuple):
    """A configuration file with references resolved, but not validated. Serializable as JSON."""

    source: str
    """The file's path: paths inside it are relative to its folder."""
    values: dict[str, Any]
    problems: list[ConfigProblem]


_INTEGER, _NUMBER, _TABLE, _ARRAY = "must be an integer", "must be a number", "must be a table", "must be an array"

_WORDS = {
    "missing": "is missing",
    "literal_error": "must be {expected}",
    "int_type": _INTEGER,
    "int_parsing": _INTEGER,
    "int_parsing_size": _INTEGER,
    "int_from_float": _INTEGER,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a string",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have {max_length} characters or fewer",
    "model_type": _TABLE,
    "dict_type": _TABLE,
    "list_type": _ARRAY,
    "tuple_type": _ARRAY,
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have {max_length} entries or fewer",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}
"""pydantic's kinds of error in a configuration, in TOML's words: its own name Python's types."""


def load(path: Path, model: type[SettingsT]) -> SettingsT:
    """Read, resolve and validate one configuration file.

    :param model: the settings class, :class:`GatewaySettings` or the admin service's
    :raises ConfigError: with every problem found; no message contains a resolved secret
    """
    return validate(read(path), model)


def read(path: Path, *, only: frozenset[str] | None = None) -> Raw:
    """Read a file and resolve its references; :func:`validate` reports unresolved ones with the other problems.

    :param only: sections to read; references in the others are not resolved
    :raises ConfigError: the file cannot be read at all, or is not TOML
    """
    source = str(path)
    try:
        text = path.read_bytes().decode()
        raw = tomllib.loads(text)
    except OSError as error:
        raise ConfigError([ConfigProblem("", f"cannot be read: {error.strerror}")], source) from None
    except UnicodeDecodeError as error:
        raise ConfigError([ConfigProblem("", f"not UTF-8 at byte {error.start}")], source) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([ConfigProblem("", f"not TOML: {error}")], source) from None
    except RecursionError:
        raise ConfigError([ConfigProblem("", "not TOML that can be read: nested too deeply")], source) from None
    if only is not None:
        raw = {section: values for section, values in raw.items() if section in only}
    problems: list[ConfigProblem] = []
    return Raw(source, _resolve(raw, path.parent, "", problems), problems)


def validate(raw: Raw, model: type[SettingsT]) -> SettingsT:
    """Validate a file that was read.

    :raises ConfigError: with all problems found, those of reading first
    """
    problems = raw.problems + _dangling(raw.values)
    settings: SettingsT | None = None
    try:
        settings = model.model_validate(raw.values, context={"folder": Path(raw.source).parent})
    except ValidationError as error:
        unresolved = {problem.path for problem in problems}
        problems += [problem for problem in (_problem(each, model) for each in _own_errors(error)) if problem.path not in unresolved]
    if problems or settings is None:
        raise ConfigError(problems, raw.source)
    return settings


def _dangling(raw: dict[str, Any]) -> list[ConfigProblem]:
    """Routes that name an upstream or a table of methods that is not defined. Checked on the raw file, to report it with the rest."""
    routes = raw.get("routes", [])
    return [
        ConfigProblem(f"routes[{index}].{member}", f"there is no [{table}.{route[member]}]")
        for member, table in _REFERENCES.items()
        if isinstance(raw.get(table, {}), dict) and isinstance(routes, list)
        for index, route in enumerate(routes)
        if isinstance(route, dict) and isinstance(route.get(member), str) and route[member] not in raw.get(table, {})
    ]


def _resolve(value: Any, folder: Path, where: str, problems: list[ConfigProblem]) -> Any:
    """Replace every ``env:NAME`` and ``file:PATH`` string; a relative path is taken from the file's own folder."""
    if isinstance(value, dict):
        return {key: _resolve(item, folder, f"{where}.{key}" if where else str(key), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, folder, f"{where}[{index}]", problems) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    if value.startswith("env:"):
        name = value[4:]
        if name not in os.environ:
            problems.append(ConfigProblem(where, f"the environment variable {name} is not set"))
            return value
        return os.environ[name]
    if value.startswith("file:"):
        target = folder / value[5:]
        try:
            return target.read_text(encoding="utf-8").strip()
        except OSError as error:
            problems.append(ConfigProblem(where, f"{target} cannot be read: {error.strerror}"))
        except UnicodeDecodeError:
            problems.append(ConfigProblem(where, f"{target} is not UTF-8 text"))
        except ValueError:
            problems.append(ConfigProblem(where, "the path contains NUL"))
    return value


def _own_errors(error: ValidationError) -> list[ErrorDetails]:
    """The errors, without the "list is too short" that pydantic adds when an item is invalid."""
    found = error.errors()
    inside = {item["loc"][:length] for item in found for length in range(len(item["loc"]))}
    return [item for item in found if not (item["type"] == "too_short" and item["loc"] in inside)]


def _problem(error: ErrorDetails, model: type[BaseModel]) -> ConfigProblem:
    path = ""
    for part in error["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    words = _WORDS.get(error["type"])
    message = words.format(**error.get("ctx", {})) if words else error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        close = get_close_matches(str(error["loc"][-1]), _keys_at(model, error["loc"]), n=1)
        message = f"not a known key: did you mean {close[0]}?" if close else "not a known key"
    return ConfigProblem(path, message)


def _keys_at(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The valid keys of the table at this location. List indices and table names are skipped."""
    table = model
    for part in place[:-1]:
        for name, field in table.model_fields.items():
            if part == (field.alias or name):
                table = _table_in(field.annotation) or table
                break
    return [field.alias or name for name, field in table.model_fields.items()]


def _table_in(annotation: Any) -> type[BaseModel] | None:
    """The model in a type such as ``dict[str, Upstream] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _table_in(part)) is not None), None)
