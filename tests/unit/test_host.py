"""Texts on their way out go through the masker in pieces, and come out whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchdog_hook.integrations.airflow.host import TOKENS, pieces


@given(st.text(alphabet="ab\n", max_size=200), st.integers(1, 20))
def test_the_pieces_are_the_text_and_each_but_the_last_ends_with_a_line(text, size):
    parts = list(pieces(text, size))

    assert "".join(parts) == text
    assert all(part.endswith("\n") for part in [part for part in parts if part][:-1])


def test_a_token_is_masked_wherever_it_stands():
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"

    assert token not in TOKENS.sub("***", f"with command [x(token='{token}')]")
    assert "secret" not in TOKENS.sub("***", "authorization: Bearer secret-thing")
