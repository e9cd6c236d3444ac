"""Waiting for what must come true soon."""

import time


class TooLate(AssertionError):
    """What was waited for did not happen in time."""


def eventually(seconds, what, condition, every=0.1):
    """Returns the first true value of `condition`, and how many seconds it took; fails with `what` after `seconds`."""
    began = time.monotonic()
    last = None
    while True:
        value = condition()
        took = time.monotonic() - began
        if value:
            return value, took
        last = value
        if took > seconds:
            raise TooLate(f"not within {seconds} s: {what} (last seen: {last!r})")
        time.sleep(every)


def never(seconds, what, condition, every=0.1):
    """Fails with `what` if `condition` becomes true within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert not condition(), what
        time.sleep(every)
