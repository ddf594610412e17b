"""Checks of names in the configuration of a task."""

from collections.abc import Collection


def check_names(*choices: tuple[str, str, Collection[str]]) -> None:
    """Check that configured names exist.

    Args:
        choices: configuration key, its value, and the allowed values.

    Raises:
        ValueError: with the allowed values.

    >>> check_names(("input", "image", ["image", "text"]))
    """
    for key, value, known in choices:
        if value not in known:
            raise ValueError(f"{key} = {value}, but there is {', '.join(known) or 'none'}; set it to one of them")
