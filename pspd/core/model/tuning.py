"""Tunables: timeouts, pacing and bounds that peers do not need to know, one class for each state machine.

A machine gets its tuning as an argument, so that tests and the simulator can change values.
"""

from __future__ import annotations

from dataclasses import dataclass

from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS


@dataclass(frozen=True, slots=True)
class ServerTuning:
    """Tunables of the server's state machine. Times are in nanoseconds.

    A ``_per_member`` time is multiplied by the number of members. The product is a minimum for the time of the same
    name; only for ``share_check_ns``, it is added.
    """

    # Leases and reachability
    lease_ns: int = 30 * SECOND_NS
    """Time without a message from a member after which its session ends. A full link or a busy disk may delay a renewal
    for seconds."""
    lease_ns_per_member: int = 12 * MILLISECOND_NS
    """Makes a lease long enough for the server to process a renewal from every member. After a restart of the server,
    it also extends the time in which the clients may return."""
    active_percent_of_lease: int = 30
    """A member is active if the time since the server last received something from it is less than this percentage of
    the lease. Members renew their leases about four times per lease."""
    replacement_ns: int = 60 * SECOND_NS
    """Time after a replacement, or after a refused replacement, in which a session with the same identity cannot
    replace an active member. Also the shortest time between two ``DuplicateRefused`` events of one session."""
    loop_lag_ns: int = SECOND_NS
    """A timer that is handled this late shows that the server was busy, so its sockets may hold unread messages."""
    expiries_per_tick_max: int = 8
    """The most sessions that end at a time, and the most members that become unreachable at a time. So received
    datagrams do not wait too long."""
    hello_interval_ns: int = 5 * SECOND_NS
    hello_interval_ns_per_member: int = 10 * MILLISECOND_NS
    hello_interval_ns_max: int = 100 * SECOND_NS
    """The hello interval, and the maximum of the product: below the two minutes for which a NAT keeps a mapping (RFC
    4787). In a small network, the interval is at most ``reachability_ns / reachability_hellos``."""
    retry_after_ns: int = 30 * SECOND_NS
    retry_after_ns_per_member: int = 24 * MILLISECOND_NS
    """How long a REQUEST_ACK makes a client wait for a delivery in flight before the client repeats the request."""
    reachability_hellos: int = 2
    reachability_ns: int = 30 * SECOND_NS
    """A member becomes unreachable if it does not confirm for ``reachability_ns``, or for ``reachability_hellos`` hello
    intervals if these are longer, that the server's datagrams arrive. Only a member with a data path can confirm it."""
    fetch_rto_min_ns: int = SECOND_NS
    """The shortest retransmission timeout of a fetch that names a holder (RFC 6298, 2.4). An early retransmission makes
    the holder send a whole frame twice. Most losses are found sooner, by the answer to a later broadcast."""

    # Bounds of the server's memory
    members_max: int = 20_000
    join_ranges_max: int = 5_000_000
    """The most ranges that the holdings of all members may have together when they join. Each range takes about 80
    bytes; a held file counts as at least one range."""
    lost_clients_max: int = 1024
    files_max: int = 10_000
    manifests_bytes_max: int = 2 * 1024**3
    """The largest size of the block digests of all files together. The server keeps every manifest in memory."""
    departed_clients_max: int = 1024
    """The most clients per file whose holdings the server remembers when they have left or are lost. It remembers them
    to name the last holder of a missing range."""
    partial_unit_chunks_max: int = 4096
    """The most chunks of partly received units whose senders the server remembers."""
    presumed_lost_max: int = 16
    """The most deliveries presumed lost that the server remembers for one client and file."""
    request_number_jump_max: int = 2**20
    """The largest difference between a request number and the highest earlier number of its session. A number further
    ahead would make the client's next requests stale, so the session ends."""

    # Fetches and broadcasts
    named_tries_max: int = 3
    """The number of broadcasts of a fetch that name one holder, each time a different one if possible. If there is
    another holder, the next broadcast asks every holder."""
    fetch_tries_max: int = 10
    """The number of broadcasts after which the server abandons a fetch. It then tries the file's requests again."""
    reordering_ns_min: int = 2 * MILLISECOND_NS
    """If a holder answers a later broadcast first, the earlier broadcast counts as lost after this time, or after half
    a round trip if that is longer."""
    receive_timeout_ns: int = 30 * SECOND_NS
    receive_timeout_ns_per_chunk: int = 62 * MILLISECOND_NS
    """The longest time for which a contribution may be received: ``receive_timeout_ns``, and additional time for each
    chunk at 16 KiB/s. A silent connection is closed sooner."""
    holders_tried_max: int = 16
    """The number of clients, chosen at random, among which the server first looks for a holder other than the owner."""
    broadcast_pacing_ns: int = 50_000
    """The pause after broadcasts, for each datagram sent. It limits broadcasts to about half of the server's time."""
    broadcast_burst_datagrams: int = 512
    """The number of datagrams in a row after which the broadcasts of other files wait until the pause is over."""
    frame_cache_divisor: int = 4
    small_frame_cache_divisor: int = 2
    small_frame_chunks: int = 64
    """A frame is at most the cache's size divided by the first number, so that several frames are in flight. Frames
    of up to ``small_frame_chunks`` are limited by the second number instead, because their cost hardly depends on their
    size."""

    # Deliveries
    quota_cache_divisor: int = 4
    """A quota is the cache's size divided by this number. If two frames are more, the quota is two frames, but at most
    half of the cache. So slow readers leave room for others."""
    delivery_pacing_ns: int = 200_000
    """The pause after a batch, for each of its deliveries. Clients process their deliveries in this time. Chunks that
    arrive during the pause join the next batch."""
    batch_cache_divisor: int = 2
    """A batch is full when it has ``frame_chunks`` chunks, or the cache's size divided by this number if that is less.
    The rest of the cache is for fetches."""

    # Waiting requests
    queue_skips_max: int = 3
    """The most waiting requests of one file that a round skips because they still wait after an attempt."""
    queue_skips_per_call_max: int = 16
    """The number of skipped requests, of all files together, after which a round stops if there are fetches. The
    next call continues it with the next file."""
    shares_skipped_max: int = 8
    """The number of shares without an available holder that a request may skip before it waits."""
    straggler_acks: int = 6
    """A client becomes a straggler when the clients that want chunks of a file have sent more than this number of
    acknowledgements each, on average, since the client's own last one."""
    deferral_budget_divisor: int = 3
    """The deferral budget is the time for which a file's fetches may be deferred for slower clients. It grows by the
    time without such a deferral, divided by this number."""
    deferral_budget_ns_max: int = 1000 * MILLISECOND_NS
    deferral_budget_ns_initial: int = 250 * MILLISECOND_NS
    """The largest and the initial budget. A busy machine may pause a client for some tenths of a second."""
    deferral_budget_ns_min: int = MILLISECOND_NS
    """With less than this budget, no fetch is deferred."""

    # Shares
    share_check_ns: int = 120 * SECOND_NS
    share_check_ns_per_member: int = 48 * MILLISECOND_NS
    """The time between two checks of the owners' progress. If an owner has made no progress since the last check, its
    shares are reassigned."""
    share_delivery_ns: int = 120 * SECOND_NS
    share_delivery_ns_per_chunk: int = 62 * MILLISECOND_NS
    """The time in which an owner must acknowledge a delivery: a base time, and a time for each chunk of the largest
    frame, at 16 KiB/s."""


SERVER_TUNING = ServerTuning()
"""The default values of a server."""


@dataclass(frozen=True, slots=True)
class ClientTuning:
    """Tunables of the client's state machine. Times are in nanoseconds."""

    # Hellos and the downlink
    hello_interval_ns_min: int = SECOND_NS
    """The shortest hello interval, even if the server asks for a shorter one."""
    hellos_without_backoff: int = 20
    """The number of hellos that are sent without backoff before the first answer, for about 10 s. So a client finds out
    quickly whether the data path works, despite losses."""
    downlink_timeout_ns: int = 30 * SECOND_NS
    hellos_per_downlink_timeout: int = 2
    """The downlink is lost after ``downlink_timeout_ns``, or ``hellos_per_downlink_timeout`` hello intervals if these
    are longer, without a datagram from the server."""

    # Requests
    retry_after_ns_min: int = 50 * MILLISECOND_NS
    retry_after_ns_max: int = 240 * SECOND_NS
    """Bounds of the time for which the server can make a client wait before it repeats a request. The maximum also
    limits the hello interval."""
    requests_per_window: int = 8
    """The number of requests while one window of chunks arrives, so that a few lost requests do not stop the flow. At
    least one frame arrives between two requests, because each request costs the server time."""
    measured_requests_max: int = 64
    """The most requests whose send times are remembered, to measure round trips."""
    corrupt_pause_ns_min: int = 100 * MILLISECOND_NS
    corrupt_pause_ns_max: int = 5 * SECOND_NS
    """Bounds of the pause before the next request after two or more corrupt deliveries in a row. The pause doubles with
    each further one. Without a pause, corrupt chunks would be fetched at the full rate."""

    # Contributions
    answered_broadcasts_max: int = 1024
    """The most answered broadcasts that are remembered, so that a duplicate is not answered again."""


CLIENT_TUNING = ClientTuning()
"""The default values of a client."""
