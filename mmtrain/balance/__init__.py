"""Loss balancing: how the losses of several tasks are combined into one step."""
