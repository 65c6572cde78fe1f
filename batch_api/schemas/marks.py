"""The first bytes that tell what a file is: text in UTF-8 that says so, or gzip."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"
