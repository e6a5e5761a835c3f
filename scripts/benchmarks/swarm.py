"""A libtorrent client, configured for speed: swarm.py TORRENT FOLDER ADDRESS PORT [--seed].

Touches ``<copy>.done`` when it has the file, and seeds until it is killed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import libtorrent

SETTINGS = {
    "enable_dht": False,
    "enable_lsd": True,
    "enable_upnp": False,
    "enable_natpmp": False,
    # TCP only: uTP yields to other traffic.
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "out_enc_policy": 2,  # no encryption
    "in_enc_policy": 2,
    "allow_multiple_connections_per_ip": True,
    "connection_speed": 500,
    "connections_limit": 500,
    "unchoke_slots_limit": -1,
    "mixed_mode_algorithm": 0,
    "send_buffer_watermark": 4 * 1024 * 1024,
    "max_out_request_queue": 2000,
    "max_allowed_in_request_queue": 2000,
    "aio_threads": 2,
    "hashing_threads": 1,
    "alert_mask": 0,
}


def main() -> None:
    """Download or seed."""
    torrent, folder, address, port, *rest = sys.argv[1:]
    session = libtorrent.session({**SETTINGS, "listen_interfaces": f"{address}:{port}"})
    added = libtorrent.add_torrent_params()
    added.ti = libtorrent.torrent_info(torrent)
    added.save_path = folder
    if rest:
        added.flags |= libtorrent.torrent_flags.seed_mode
    handle = session.add_torrent(added)
    while not handle.status().is_seeding:
        time.sleep(0.005)
    if not rest:
        Path(folder, f"{added.ti.name()}.done").touch()
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
