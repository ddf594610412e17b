"""Which samples stand in which batch."""
