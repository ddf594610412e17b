"""Names that a task is given: they must be of what is there."""

from collections.abc import Collection


def check_names(*choices: tuple[str, str, Collection[str]]) -> None:
    """Refuse what is not there.

    Args:
        choices: the key of the configuration, its value, and what it can be.

    Raises:
        ValueError: with what there is.

    >>> check_names(("reads", "image", ["image", "text"]))
    """
    for key, value, known in choices:
        if value not in known:
            raise ValueError(f"{key} = {value}, but there is {', '.join(known) or 'none'}; name one of them")
