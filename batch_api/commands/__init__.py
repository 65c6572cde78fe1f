"""The commands: the only place that builds the object graph."""
