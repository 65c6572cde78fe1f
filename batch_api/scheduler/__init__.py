"""Moves batches from upload to output: intake, dispatcher, finalizer, janitor."""
