"""The pages at `/`, for people. They only read: what is done on them goes through the API."""
