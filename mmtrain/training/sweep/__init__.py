"""What runs of a sweep write and read."""
