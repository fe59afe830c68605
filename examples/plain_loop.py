"""
A loop that must not fall silent, without Airflow.

The loop asks a server for work. From the third question on the server says nothing for a while: the watchdog
notices, dumps what is stuck and where, ends the one guarded call, and the loop goes on.

    python examples/plain_loop.py
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import socket
import tempfile
import threading

from watchdog_hook import Config, StuckCallTimeout, Watchdog

SILENT = ("3", "4")  # questions that are never answered


def serve(server: socket.socket) -> None:
    """Answer each question on a connection of its own, but for those that get no answer."""
    with contextlib.ExitStack() as kept:
        while True:
            connection, _ = server.accept()
            question = connection.recv(64).decode()
            if question in SILENT:
                kept.enter_context(connection)  # open, and silent
                continue
            with connection:
                connection.sendall(f"answer {question}".encode())
            if question == "stop":
                return


def ask(address: tuple[str, int], question: str) -> str:
    """Ask the server, without any timeout: this is the mistake that a watchdog is for."""
    with socket.create_connection(address) as connection:
        connection.sendall(question.encode())
        return connection.recv(64).decode()


def loop(dog: Watchdog, address: tuple[str, int], rounds: int) -> int:
    """Ask for each round; return how many questions got no answer."""
    stuck = 0
    for number in range(1, rounds + 1):
        dog.beat(f"round {number}")
        try:
            with dog.guard("ask the server"):
                answer = ask(address, str(number))
            print(f"round {number}: {answer}")
        except StuckCallTimeout as error:
            # Nobody knows whether the server did what it was asked: decide here what that means.
            stuck += 1
            print(f"round {number}: {error}")
    return stuck


def main() -> None:
    """Run the loop under a watchdog."""
    parser = argparse.ArgumentParser(
        description="A loop with a server that falls silent; the watchdog ends the stuck calls."
    )
    parser.add_argument("--rounds", type=int, default=6, help="questions to ask (default: 6)")
    parser.add_argument(
        "--after", type=float, default=1.0, help="seconds of silence that are too long (default: 1)"
    )
    parser.add_argument("--incidents", help="directory for the dumps (default: a temporary one)")
    chosen = parser.parse_args()
    logging.basicConfig(format="%(levelname)s %(message)s")
    config = Config(
        poll_interval=chosen.after / 10,
        dump_after=chosen.after / 2,
        interrupt_after=chosen.after,
        startup_grace=0,
        incident_dir=chosen.incidents or tempfile.mkdtemp(prefix="watchdog_hook-"),
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        with Watchdog(config) as dog:
            stuck = loop(dog, server.getsockname(), chosen.rounds)
        ask(server.getsockname(), "stop")
        thread.join()
    print(f"{chosen.rounds} rounds, {stuck} ended by the watchdog; dumps in {config.incident_dir}")


if __name__ == "__main__":
    main()
