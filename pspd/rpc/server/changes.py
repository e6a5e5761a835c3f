"""What a watcher of the network is sent: the difference between two statuses."""

from __future__ import annotations

from pspd.v1 import network_pb2, status_service_pb2


def changes(
    seen: status_service_pb2.GetStatusResponse | None, status: status_service_pb2.GetStatusResponse
) -> status_service_pb2.WatchStatusResponse | None:
    """Return the difference between two statuses for a watcher; None if there is none.

    Args:
        seen: the status that the watcher has; None for none.
        status: the status now.
    """
    known_clients = {client.name: client for client in seen.clients} if seen else {}
    known_files = {file.file_id: file for file in seen.files} if seen else {}
    is_gone = known_clients.keys() - {client.name for client in status.clients} or known_files.keys() - {
        file.file_id for file in status.files
    }
    if seen is None or is_gone:
        return status_service_pb2.WatchStatusResponse(
            snapshot=True,
            server=status.server,
            cache=status.cache,
            clients=status.clients,
            files=status.files,
        )
    clients = [client for client in status.clients if known_clients.get(client.name) != client]
    files = [file for file in status.files if _differs(known_files.get(file.file_id), file)]
    cache = status.cache if status.cache != seen.cache else None
    if not (clients or files or cache):
        return None
    return status_service_pb2.WatchStatusResponse(server=status.server, cache=cache, clients=clients, files=files)


def _differs(seen: network_pb2.File | None, file: network_pb2.File) -> bool:
    """Return whether a file differs in more than its times.

    Args:
        seen: the file that the watcher has; None for none.
        file: the file now.
    """
    if seen is None:
        return True
    return _ageless(seen) != _ageless(file)


def _ageless(file: network_pb2.File) -> network_pb2.File:
    """Return a file without the fields that change with time alone."""
    ageless = network_pb2.File()
    ageless.CopyFrom(file)
    ageless.seeding_seconds = ageless.exchange_seconds = 0
    for client in ageless.missing_clients:
        client.away_seconds = 0
    for each in ageless.clients:
        each.ClearField("share_idle_seconds")
    return ageless
