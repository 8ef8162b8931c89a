"""What a result depends on: code, found by following imports, and the versions of libraries."""
