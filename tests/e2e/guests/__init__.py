"""Code of a user's, as the DAG processor and the triggerer load it."""
