"""Tasks: a head, a loss, metrics and what they read. `mmtrain.tasks.task.Task` says what a task must offer."""
