"""Figures, each beside the bound it is held against. Nothing here asserts: a table is printed."""
