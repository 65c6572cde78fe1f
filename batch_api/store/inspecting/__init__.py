"""What `store/inspection.py` looks at, one kind of thing a module. Reads, and changes nothing."""
