"""A package, because a dependency installs a `tests` of its own, which would hide a folder without this file."""
