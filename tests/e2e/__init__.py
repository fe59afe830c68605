"""A real scheduler against a false API server: what operators get, seen from outside."""
