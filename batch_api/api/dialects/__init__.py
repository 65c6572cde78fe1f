"""Other systems' shapes for the same questions: each is a chat with the same upstreams.

None has streams, tools or batches of files; who wants more speaks OpenAI's.
"""
