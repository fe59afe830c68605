"""
A watchdog for the Airflow scheduler, and for any loop that must not fall silent.

In `airflow_local_settings.py`: `import watchdog_hook`, then `watchdog_hook.install()`. That file is imported by
every Airflow process, so this module imports nothing but os and sys, and the rest when it is asked for.
"""

import os
import sys

__version__ = "0.1.0"
__all__ = ["Config", "StuckCallTimeout", "Watchdog", "install"]

_LAZY = {
    "Config": "watchdog_hook.config",
    "StuckCallTimeout": "watchdog_hook.core.model",
    "Watchdog": "watchdog_hook.watchdog",
}


def install():  # type: () -> None
    """
    Have the Airflow scheduler of this process, if it becomes one, watched.

    Imports no Airflow module, starts no thread, opens no file and logs nothing. Never raises: an exception
    here would end every Airflow process. What is wrong is said in one line on standard error.
    """
    try:
        from watchdog_hook.integrations import airflow

        airflow.install()
    except Exception as error:  # noqa: BLE001
        try:
            os.write(
                2,
                f"watchdog_hook: event=part_off part=install error={type(error).__name__} "
                f'outcome="not armed; Airflow is not affected"\n'.encode(),
            )
        except OSError:
            pass


def __getattr__(name):  # type: (str) -> object
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    __import__(_LAZY[name])
    value = getattr(sys.modules[_LAZY[name]], name)
    globals()[name] = value
    return value


def __dir__():  # type: () -> list[str]
    return sorted(set(globals()) | set(__all__))
