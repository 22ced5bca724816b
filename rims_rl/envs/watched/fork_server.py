"""Imported by the fork server, which is started with SIGTERM held back: what it starts hears SIGTERM again."""

import os
import signal


def _hear_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


os.register_at_fork(after_in_child=_hear_sigterm)
