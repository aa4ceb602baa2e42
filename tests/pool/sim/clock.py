# SPDX-License-Identifier: LGPL-2.1-or-later
"""Time as records carry it."""

import calendar
import re
import time

FORMAT = "%Y%m%dT%H:%M:%SZ"


def text(seconds=None):
    return time.strftime(FORMAT, time.gmtime(time.time() if seconds is None else seconds))


def seconds(value):
    """Seconds since 1970 of a record's datetime; None when it is not one."""
    match = re.match(r"(\d{4})-?(\d\d)-?(\d\d)T(\d\d):(\d\d):(\d\d)", value)
    return calendar.timegm(tuple(int(g) for g in match.groups()) + (0, 0, 0)) if match else None
