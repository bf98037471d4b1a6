"""The name that a user probably meant, for the remedy of an error about an unknown one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_SIMILARITY = 0.6
_LONGEST = 200


def find_nearest(word: str, names: Iterable[str]) -> str | None:
    """Find the one of `names` spelled most like `word`, regardless of case; None where none is near."""
    if len(word) > _LONGEST:
        return None
    folded = {name.casefold(): name for name in names}
    near = get_close_matches(word.casefold(), folded, n=1, cutoff=_SIMILARITY)
    return folded[near[0]] if near else None


def suggest_name(word: str, names: Iterable[str], *, otherwise: str | None = None) -> str:
    """Write a remedy for the unknown name `word`: the nearest of `names`.

    Where none is near, the remedy is `otherwise`, by default the list of all names.
    """
    names = list(names)
    nearest = find_nearest(word, names)
    if nearest is not None:
        return f"did you mean {nearest!r}?"
    if otherwise is not None:
        return otherwise
    return "use one of: " + ", ".join(sorted(names)) if names else "remove it"
