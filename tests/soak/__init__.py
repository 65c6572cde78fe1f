"""A long, random ordeal for the whole product, and the check that it kept its promise.

`make soak MINUTES=10 SEED=…`, or `python -m tests.soak`.
"""
