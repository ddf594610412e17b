"""The one kind of error that is the user's to mend."""


class ConfigError(ValueError):
    """The configuration or the data is wrong. The message says what, where and the mend; exit status 2."""
