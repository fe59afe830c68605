"""Decisions over frozen values: nothing here reads a clock, a thread, a file or a socket."""
