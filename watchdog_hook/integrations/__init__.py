"""The hosts' names, and only here. Each integration imports its host inside functions."""
