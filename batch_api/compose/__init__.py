"""Docker Compose files for any number of GPUs, and nginx's list of their workers."""
