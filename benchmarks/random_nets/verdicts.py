"""What an export of a random network came to."""

RIGHT, KEPT, REFUSED = "right", "kept in float", "refused"
UNCLEAR, WRONG, CRASH = "REFUSED, NO WAY OUT", "SILENTLY WRONG", "CRASH"
FAULTS = (UNCLEAR, WRONG, CRASH)
VERDICTS = (RIGHT, KEPT, REFUSED, *FAULTS)
