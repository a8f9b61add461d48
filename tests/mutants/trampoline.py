"""What stands in a mutated module in place of each function: calls the mutant that was chosen, else the original."""

from collections.abc import Callable
from functools import wraps
from typing import Any

MutantDict = dict[str, Callable[..., Any]]

chosen = ""
"""Name of the one mutant that is at work."""
called: set[str] = set()
"""Mangled names of the functions that were called."""


def choose(name: str) -> None:
    global chosen  # noqa: PLW0603 - one process runs one mutant
    chosen = name


def mutated(mutants: MutantDict, *, is_classmethod: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """See mutmut's ``wrap_in_trampoline``, which asks the environment in every call.

    :param mutants: the original as ``_mutmut_orig`` and the mutants by name; filled in later
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def trampoline(*args: Any, **keywords: Any) -> Any:
            original = mutants["_mutmut_orig"]
            called.add(original.__name__.removesuffix("__mutmut_orig"))
            one = mutants.get(chosen, original)
            if is_classmethod:
                return getattr(args[0], one.__name__)(*args[1:], **keywords)
            return one(*args, **keywords)

        return trampoline

    return decorate
