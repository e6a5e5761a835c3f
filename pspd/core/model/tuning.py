"""Tunables: timeouts, pacing and bounds that no peer needs to know, in one place per machine.

A machine is given its tuning when it is made, so that tests and the simulator change a value without patching a module.
"""

from __future__ import annotations

from dataclasses import dataclass

from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS


@dataclass(frozen=True, slots=True)
class ServerTuning:
    """Tunables of the server's machine. Times are in nanoseconds; ``_per_member`` adds so much for each member."""

    # Leases and reachability
    lease_ns: int = 30 * SECOND_NS
    """A lease detects machines that fall silent. A full link or a busy disk may delay a renewal for seconds."""
    lease_ns_per_member: int = 12 * MILLISECOND_NS
    """The server must be able to hear from all members within one lease."""
    active_percent_of_lease: int = 30
    """A member heard within this part of a lease is active: members renew at every quarter."""
    replacement_ns: int = 60 * SECOND_NS
    """Within this time another session of its identity replaces an active member at most once."""
    loop_lag_ns: int = SECOND_NS
    """A timer served this late found a busy server: renewals may wait unread in its sockets."""
    expiries_per_tick_max: int = 8
    """Members declared lost or unreachable in a row: each costs work while other datagrams wait to be read."""
    hello_ns: int = 5 * SECOND_NS
    hello_ns_per_member: int = 10 * MILLISECOND_NS
    hello_ns_max: int = 100 * SECOND_NS
    """The hello interval: longer in large networks, within the two minutes that a NAT keeps a mapping (RFC 4787)."""
    retry_after_ns: int = 30 * SECOND_NS
    retry_after_ns_per_member: int = 24 * MILLISECOND_NS
    """How long a client waits for a delivery in flight before it repeats a request."""
    hellos_per_reach: int = 2
    reach_ns: int = 30 * SECOND_NS
    """How long a member stays reachable without a sign that datagrams pass both ways and its link is open."""
    fetch_rto_min_ns: int = SECOND_NS
    """RFC 6298 (2.4). A holder asked again too early sends a whole frame twice; its order mostly reveals a loss."""

    # Bounds of the server's memory
    members_max: int = 20_000
    told_ranges_max: int = 5_000_000
    """Ranges that all members together may report at joining, one per file at least: about 80 bytes each."""
    lost_clients_max: int = 1024
    files_max: int = 10_000
    manifests_bytes_max: int = 2 * 1024**3
    """Block digests of all files together: the server keeps every manifest in memory."""
    departed_max: int = 1024
    """Lost clients whose holdings are remembered per file, to name the last holder of a missing range."""
    parts_max: int = 4096
    """Chunks received without the rest of their unit whose sender is remembered."""
    presumed_lost_max: int = 16
    """Deliveries presumed lost that are remembered per client and file."""
    request_jump_max: int = 2**20
    """How far a request number may be ahead of all earlier ones of its session. Lost datagrams explain no larger jump,
    and it would make the client's own requests stale."""

    # Fetches and broadcasts
    named_tries_max: int = 3
    """How often a broadcast names one holder, each time another if possible, before it asks every holder."""
    fetch_tries_max: int = 10
    """Broadcasts after which a fetch is given up; its waiters are served anew, other chunks first."""
    reordering_ns_min: int = 2 * MILLISECOND_NS
    """A broadcast that a later one overtook may still be in flight: it gets this time, or half a round trip."""
    receive_ns: int = 30 * SECOND_NS
    receive_ns_per_chunk: int = 62 * MILLISECOND_NS
    """How long one contribution may take, as at 16 KiB/s; the connection itself detects a stall."""
    holders_tried_max: int = 16
    """Holders sampled where the owners of a chunk are busy."""
    broadcast_pacing_ns: int = 50_000
    """Pause per datagram of the last broadcasts: broadcasts take about half of the server's time at most."""
    broadcast_burst_datagrams: int = 512
    """Datagrams after which other files' broadcasts wait for the next time, and other work comes first."""
    frame_cache_divisor: int = 4
    small_frame_cache_divisor: int = 2
    small_frame_chunks: int = 64
    """A frame takes at most this part of the cache, so that several are in flight; a frame below ``small_frame_chunks``
    may take more, as its cost does not depend on its size."""

    # Deliveries
    quota_cache_divisor: int = 4
    """One member's deliveries pin at most this part of the cache, or two frames: slow readers cannot pin it all."""
    delivery_pacing_ns: int = 200_000
    """Pause per delivery after a batch, its client's work included: chunks that arrive sooner join the next batch."""
    batch_cache_divisor: int = 2
    """A batch takes at most this part of the cache: the rest is for fetches meanwhile."""

    # Waiting requests
    queue_skips_max: int = 3
    """Requests of one file that are skipped while their holders are busy, for those behind them."""
    queue_skips_per_round_max: int = 16
    """The same for all files in one round while fetches are in flight; the next round continues where this one ends."""
    shares_tried_max: int = 8
    """Shares searched for a holder with room before a request has to wait."""
    straggler_rounds: int = 6
    """Rounds of acknowledgements by the others after which a client that acknowledges nothing is a straggler."""
    straggler_budget_divisor: int = 3
    """Fetches may be stalled for stragglers for this part of the time."""
    straggler_budget_ns_max: int = 1000 * MILLISECOND_NS
    straggler_budget_ns_initial: int = 250 * MILLISECOND_NS
    """Clients drift apart in bursts: a busy machine may pause one for some tenths of a second."""
    straggler_budget_ns_min: int = MILLISECOND_NS
    """Less than this is not worth a pause."""

    # Shares
    share_ns: int = 120 * SECOND_NS
    share_ns_per_member: int = 48 * MILLISECOND_NS
    """How long the owner of a share may stay silent about it before the share is reassigned."""
    share_ns_per_chunk: int = 62 * MILLISECOND_NS
    """Additional time, for each chunk of a frame, to acknowledge a delivery, as at 16 KiB/s."""


SERVER_TUNING = ServerTuning()
"""The values that a server uses unless it is told others."""


@dataclass(frozen=True, slots=True)
class ClientTuning:
    """Tunables of the client's machine. Times are in nanoseconds."""

    # Hellos and the downlink
    hello_interval_ns_min: int = SECOND_NS
    """A client sends hellos as often as the server wants, but not more often than this."""
    hellos_without_backoff: int = 20
    """Hellos before the first answer ever: about 10 s in which to find out whether data can flow despite losses."""
    downlink_timeout_ns: int = 30 * SECOND_NS
    hellos_per_downlink_timeout: int = 2
    """The downlink is lost after this time without a datagram, and at least so many hello intervals."""

    # Requests
    retry_after_ns_min: int = 50 * MILLISECOND_NS
    retry_after_ns_max: int = 240 * SECOND_NS
    """Bounds of the time that the server may make a client wait before it repeats a request or a hello."""
    requests_per_window: int = 8
    """A window is renewed in so many steps, so that a few lost requests do not stop the flow. Small windows are renewed
    by whole frames, because each step costs the server a request and a delivery."""
    measured_requests_max: int = 64
    """Requests whose time of sending is remembered, to measure round trips."""
    corrupt_pause_ns_min: int = 100 * MILLISECOND_NS
    corrupt_pause_ns_max: int = 5 * SECOND_NS
    """Pauses before the next request while deliveries are corrupt: none after the first, then doubling between these
    bounds. Otherwise wrong bytes would be fetched at full rate."""

    # Contributions
    answered_broadcasts_max: int = 1024
    """Answered broadcasts that are remembered, so that a duplicated one is not answered twice."""


CLIENT_TUNING = ClientTuning()
"""The values that a client uses unless it is told others."""
