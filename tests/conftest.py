"""Settings of all tests."""

from __future__ import annotations

import signal

from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job of a shell; children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("without-deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("without-deadline")
