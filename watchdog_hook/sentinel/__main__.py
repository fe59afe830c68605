"""
The sentinel as a program: `python -I -S -B __main__.py PULSE TEXT DIRECTORY HOST RETENTION PY_SPY`.

PULSE and TEXT are descriptors: of the pulse, and of the memory into which faulthandler writes. It leaves the
family of whoever started it at once: its parent ends, and nobody waits for it.
"""

import os
import sys

if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    # Behind the standard library: among what is installed beside us may be modules of the same names.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from watchdog_hook.sentinel import watch

    watch.main(sys.argv[1:])
