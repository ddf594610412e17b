"""Tasks: a head, a loss, metrics and the features they read. `mmtrain.tasks.task.Task` defines the interface."""
