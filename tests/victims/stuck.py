"""
A process whose main thread gets stuck while a watchdog watches it: `python -m tests.victims.stuck CASE FOLDER`.

What diagnosis is given at the dump goes to case.json in the folder, and the process ends.
"""

from __future__ import annotations

from tests.victims import stage

if __name__ == "__main__":
    stage.main()
