"""The commands that speak to a server, from anywhere. They need OpenAI's SDK, and nothing else."""
