"""The only place with SQL and file I/O.

Functions take the session first and the moment as `now`; they read no clock and never commit.
"""
