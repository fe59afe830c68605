"""python -m watchdog_hook"""

from __future__ import annotations

import sys

from watchdog_hook.cli import main

if __name__ == "__main__":
    sys.exit(main())
