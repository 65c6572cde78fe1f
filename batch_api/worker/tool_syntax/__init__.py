"""How families of models write the calls of functions: reading, forcing and choosing a syntax.

Pure text in, pieces out: nothing here knows HTTP, the engine or a tokenizer.
"""
