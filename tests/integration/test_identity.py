"""Two clients with the same identity: the second takes over, then the first waits until it leaves."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.daemons import Network


def test_cloned_client_is_refused_until_the_other_leaves(tmp_path: Path) -> None:
    with Network(tmp_path / "network") as network:
        server = network.server()
        original = network.client("a")
        shutil.copytree(network.folder / "a", network.folder / "copy")
        copy = network.client("copy", "--name", "a")
        waits = "waiting for the other client to leave: 'a' is connected from 127.0.0.1:"
        network.until("the original is refused", lambda: waits in original.log_text())
        refused = "a: refused a second client with its identity at 127.0.0.1:"
        assert server.log_text().count(refused) == 1
        assert server.log_text().count(" a joined\n") == 2
        assert copy.stop() == 0
        network.until("the original is back", lambda: "a: joined again" in original.log_text())
        assert server.log_text().count(" a joined\n") == 3
