"""Building blocks that two or more components use."""
