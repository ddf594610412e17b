"""What a run will take, before it costs anything: memory, operations, traffic, time, disk."""
