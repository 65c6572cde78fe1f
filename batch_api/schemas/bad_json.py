"""What msgspec raises for bytes that are not the JSON that was expected."""

import msgspec

BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
