"""A DAG bundle whose refresh waits for somebody, as one does whose server is silent."""

from __future__ import annotations

import os

try:
    from airflow.dag_processing.bundles.local import LocalDagBundle
except ImportError:  # Airflow 2, which imports all there is beside the triggers
    LocalDagBundle = object


class WaitingBundle(LocalDagBundle):
    """As long as there is a FIFO beside its DAGs, a refresh opens it."""

    def refresh(self) -> None:
        """Wait for whoever opens the other end."""
        fifo = os.path.join(self.path, "wait")
        if os.path.exists(fifo):
            os.close(os.open(fifo, os.O_RDONLY))
