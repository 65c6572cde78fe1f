"""How the bundled model is made: its questions, its tokenizer, its training and its examination."""
