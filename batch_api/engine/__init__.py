"""The engine: turns sequences into tokens. It imports nothing else of ours, and torch only
in the modules that compute."""
