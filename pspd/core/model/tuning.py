"""Tunables: timeouts, pacing and bounds that peers do not need to know, one class for each state machine.

A machine gets its tuning as an argument, so that tests and the simulator can change values.
"""

from __future__ import annotations

from dataclasses import dataclass

from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS


@dataclass(frozen=True, slots=True)
class ServerTuning:
    """Tunables of the server's state machine. Times are in nanoseconds.

    A ``_per_member`` time is added for each member.
    """

    # Leases and reachability
    lease_ns: int = 30 * SECOND_NS
    """Time without a renewal until a member is lost. A full link or a busy disk may delay a renewal for seconds."""
    lease_ns_per_member: int = 12 * MILLISECOND_NS
    """The server must be able to process the renewals of all members within one lease."""
    active_percent_of_lease: int = 30
    """A member is active if it was heard within this part of a lease. Members renew four times per lease."""
    replacement_ns: int = 60 * SECOND_NS
    """Time after a replacement in which no other session of the same identity replaces an active member."""
    loop_lag_ns: int = SECOND_NS
    """A timer this late shows that the server was busy: its sockets may hold unread renewals."""
    expiries_per_tick_max: int = 8
    """Members declared lost or unreachable at a time, so that received datagrams do not wait too long."""
    hello_ns: int = 5 * SECOND_NS
    hello_ns_per_member: int = 10 * MILLISECOND_NS
    hello_ns_max: int = 100 * SECOND_NS
    """The hello interval. It stays below the two minutes for which a NAT keeps a mapping (RFC 4787)."""
    retry_after_ns: int = 30 * SECOND_NS
    retry_after_ns_per_member: int = 24 * MILLISECOND_NS
    """How long a client waits for a delivery in flight before it repeats a request."""
    hellos_per_reach: int = 2
    reach_ns: int = 30 * SECOND_NS
    """A member is unreachable after this time, and at least so many hello intervals, without a sign that datagrams pass
    in both directions and its link is open."""
    fetch_rto_min_ns: int = SECOND_NS
    """The shortest retransmission timeout of a fetch (RFC 6298, 2.4). An early retransmission makes a holder send a
    whole frame twice, and reordering reveals most losses sooner."""

    # Bounds of the server's memory
    members_max: int = 20_000
    join_ranges_max: int = 5_000_000
    """Ranges that all members together may report when they join, at least one per file: about 80 bytes each."""
    lost_clients_max: int = 1024
    files_max: int = 10_000
    manifests_bytes_max: int = 2 * 1024**3
    """Size of the block digests of all files: the server keeps every manifest in memory."""
    departed_max: int = 1024
    """Lost clients whose holdings are remembered per file, to name the last holder of a missing range."""
    parts_max: int = 4096
    """Chunks received without the rest of their unit whose senders are remembered."""
    presumed_lost_max: int = 16
    """Deliveries presumed lost that are remembered per client and file."""
    request_jump_max: int = 2**20
    """Largest difference between a request number and the highest earlier one of its session. A larger one is forged,
    and would make the client's next requests stale."""

    # Fetches and broadcasts
    named_tries_max: int = 3
    """Broadcasts of a fetch that name one holder, each time another if possible, before one asks all holders."""
    fetch_tries_max: int = 10
    """Broadcasts after which a fetch fails. The requests that wait for it are served again, from other chunks."""
    reordering_ns_min: int = 2 * MILLISECOND_NS
    """If a holder answers a later broadcast first, the earlier one is lost after this time, or half a round trip if
    that is longer."""
    receive_ns: int = 30 * SECOND_NS
    receive_ns_per_chunk: int = 62 * MILLISECOND_NS
    """Longest time for one contribution, at 16 KiB/s. The connection detects a stall sooner."""
    holders_tried_max: int = 16
    """Holders examined for a chunk whose owners are busy."""
    broadcast_pacing_ns: int = 50_000
    """Pause for each datagram of the last broadcasts: broadcasts take about half of the server's time at most."""
    broadcast_burst_datagrams: int = 512
    """Datagrams in a row, after which the broadcasts of other files wait until other work is done."""
    frame_cache_divisor: int = 4
    small_frame_cache_divisor: int = 2
    small_frame_chunks: int = 64
    """A frame takes at most this part of the cache, so that several are in flight. Frames up to ``small_frame_chunks``
    may take more, because their cost hardly depends on their size."""

    # Deliveries
    quota_cache_divisor: int = 4
    """One member's deliveries pin at most this part of the cache, or two frames, so that slow readers leave room."""
    delivery_pacing_ns: int = 200_000
    """Pause for each delivery of a batch, in which the client does its work. Chunks that arrive sooner join the next
    batch."""
    batch_cache_divisor: int = 2
    """A batch takes at most this part of the cache. The rest is for fetches."""

    # Waiting requests
    queue_skips_max: int = 3
    """Waiting requests of one file that a round may skip because their holders are busy."""
    queue_skips_per_round_max: int = 16
    """The same for all files together, while fetches are in flight. The next round continues at that point."""
    shares_tried_max: int = 8
    """Shares in which a round looks for a holder with room before a request has to wait."""
    straggler_rounds: int = 6
    """Rounds of acknowledgements by other clients after which a client without any is a straggler."""
    straggler_budget_divisor: int = 3
    """The budget grows by the time in which no fetch is deferred for slower clients, divided by this."""
    straggler_budget_ns_max: int = 1000 * MILLISECOND_NS
    straggler_budget_ns_initial: int = 250 * MILLISECOND_NS
    """The largest and the first budget. A busy machine may pause a client for some tenths of a second."""
    straggler_budget_ns_min: int = MILLISECOND_NS
    """The smallest budget for which fetches pause."""

    # Shares
    share_ns: int = 120 * SECOND_NS
    share_ns_per_member: int = 48 * MILLISECOND_NS
    """Time without progress on a share after which it is reassigned."""
    share_ns_per_chunk: int = 62 * MILLISECOND_NS
    """Additional time for each chunk of a frame, at 16 KiB/s."""


SERVER_TUNING = ServerTuning()
"""The default values of a server."""


@dataclass(frozen=True, slots=True)
class ClientTuning:
    """Tunables of the client's state machine. Times are in nanoseconds."""

    # Hellos and the downlink
    hello_interval_ns_min: int = SECOND_NS
    """The shortest hello interval, if the server asks for a shorter one."""
    hellos_without_backoff: int = 20
    """Hellos without backoff before the first answer: about 10 s, in which to detect a data path despite losses."""
    downlink_timeout_ns: int = 30 * SECOND_NS
    hellos_per_downlink_timeout: int = 2
    """The downlink is lost after this time, and at least so many hello intervals, without a datagram."""

    # Requests
    retry_after_ns_min: int = 50 * MILLISECOND_NS
    retry_after_ns_max: int = 240 * SECOND_NS
    """Bounds of the time for which the server can make a client wait before it repeats a request or a hello."""
    requests_per_window: int = 8
    """Requests for each window of chunks, so that a few lost requests do not stop the flow. A step between two requests
    is at least one frame, because each costs the server a request and a delivery."""
    measured_requests_max: int = 64
    """Requests whose send times are remembered, to measure round trips."""
    corrupt_pause_ns_min: int = 100 * MILLISECOND_NS
    corrupt_pause_ns_max: int = 5 * SECOND_NS
    """Bounds of the pause before the next request after corrupt deliveries. There is none after the first; then it
    doubles. Otherwise corrupt chunks would be fetched at the full rate."""

    # Contributions
    answered_broadcasts_max: int = 1024
    """Answered broadcasts that are remembered, so that a duplicate is not answered again."""


CLIENT_TUNING = ClientTuning()
"""The default values of a client."""
