"""
Reads this process and its host, and changes nothing.

A room here turns live things (frames, descriptors, files under /proc) into the frozen values of `core.model`
and lets go of them at once. No reader raises: what cannot be read is None, and where a report should say so
the reader puts what and why into the `missed` it was given.
"""
