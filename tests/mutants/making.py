"""Makes the mutants of one module, by mutmut's operators: one file that holds them all, and a name for each that says what it changes.

Not made: mutants of prose (a text with a space in it: the wording of a refusal is no rule), of annotations, of what stands outside
functions, and of ``async`` functions, which are no pure rules; nor what is known to be equivalent, ``None`` for ``False`` and the name of a
codec in capitals.
"""

import re
from collections import Counter
from collections.abc import Collection
from difflib import unified_diff
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

_CACHED = re.compile(r"^@lru_cache.*\n", re.MULTILINE)
"""A decorated function is not mutated; without its cache it does the same."""
_CODECS = ("ascii", "latin-1", "utf-8", "sha256", "sha512")
_MUTMUT = "from mutmut.mutation.trampoline import wrap_in_trampoline as _mutmut_mutated, MutantDict"
_OURS = "from tests.mutants.trampoline import mutated as _mutmut_mutated, MutantDict"


class Mutant(NamedTuple):
    name: str
    """As the mutated module calls it."""
    function: str
    """Mangled name of the function it is a mutant of."""
    change: str
    """Function, the lines that it changes, and what they become: the same in every run while that function stays as it is."""


def mutants_of(path: Path, without: Collection[str] = ()) -> tuple[str, list[Mutant]]:
    """The source that holds all mutants of a module, and what they are called.

    :param without: names of its classes and functions that are no pure rules
    """
    mutation: Any = import_module("mutmut.mutation.file_mutation")
    source = _CACHED.sub("", path.read_text(encoding="utf-8"))
    module, mutations, *ignored = mutation.create_mutations(str(path), source)
    made = mutation.combine_mutations_to_source(module, [one for one in mutations if _is_rule(one)], *ignored)
    assert _MUTMUT in made.code
    named = [mutant for mutant in _named(made) if mutant.change.partition(":")[0].partition(".")[0] not in without]
    return made.code.replace(_MUTMUT, _OURS), named


def _is_rule(mutation: Any) -> bool:
    old, new = mutation.original_node, mutation.mutated_node
    if getattr(mutation.contained_by_top_level_function, "asynchronous", None) is not None or _is_prose(old):
        return False
    kind = type(old).__name__
    if kind == "Call":
        return all(any(one.value is kept.value for kept in new.args) for one in old.args if _is_prose(one.value))
    if kind in ("Assign", "AnnAssign"):
        return not (getattr(old.value, "value", None) == "False" and getattr(new.value, "value", None) == "None")
    return not (kind == "SimpleString" and old.value.strip('"') in _CODECS and new.value == old.value.upper())


def _is_prose(node: Any) -> bool:
    kind = type(node).__name__
    if kind == "ConcatenatedString":
        return _is_prose(node.left) or _is_prose(node.right)
    if kind == "FormattedString":
        return any(" " in part.value for part in node.parts if type(part).__name__ == "FormattedStringText")
    return kind == "SimpleString" and " " in node.value


def _named(made: Any) -> list[Mutant]:
    lines = made.code.split("\n")

    def body(name: str) -> list[str]:
        span = made.line_span_by_function_name[name]
        text = lines[span.start - 1 : span.end]
        return [line.replace(name, "") for line in text if line.strip()]

    mutants: list[Mutant] = []
    seen: Counter[str] = Counter()
    for name in made.mutant_names:
        function = name.partition("__mutmut_")[0]
        differences = list(unified_diff(body(f"{function}__mutmut_orig"), body(name), lineterm="", n=0))[2:]
        old = " ".join(line[1:].strip() for line in differences if line[0] == "-")
        new = " ".join(line[1:].strip() for line in differences if line[0] == "+")
        change = f"{function.removeprefix('x_').removeprefix('xǁ').replace('ǁ', '.')}: {old} -> {new}"
        seen[change] += 1
        mutants.append(Mutant(name, function, change if seen[change] == 1 else f"{change} ({seen[change]})"))
    return mutants
