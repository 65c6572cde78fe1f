"""The server, a worker that chats and one that embeds, for clients in an environment of their own.

Run in the server's environment as `python -m tests.clients.serving FOLDER`; prints the base URL,
and serves until its standard input closes.
"""

import sys
from pathlib import Path

from batch_api.settings import DEMO_MODEL
from tests.clients.sums import KEY
from tests.minilm import linked
from tests.server import Server
from tests.worker.process import WorkerProcess


def main(folder: Path) -> None:
    (folder / "chat").mkdir()
    (folder / "embed").mkdir()
    embed = ("--model", str(linked(folder)), "--task", "embed", "--dtype", "float32")
    with (
        WorkerProcess(folder / "chat", "--model", str(DEMO_MODEL)) as chats,
        WorkerProcess(folder / "embed", *embed) as embeds,
        Server(folder, chats.url, embeds.url, settings={"api_key": KEY}) as server,
    ):
        print(f"{server.url}/v1", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
