"""
What looks at the watchdog from outside its process, and the memory in which it finds what it needs.

Standard library only, and little of it: the sentinel is a small program beside every scheduler, and a Kubernetes
probe starts a Python every few seconds.
"""
