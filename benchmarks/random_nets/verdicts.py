"""What an export of a random network came to."""

RIGHT, KEPT, LOSSY, REFUSED = "right", "kept in float", "lossy, and told", "refused"
UNCLEAR, WRONG, CRASH = "REFUSED, NO WAY OUT", "SILENTLY WRONG", "CRASH"
FAULTS = (UNCLEAR, WRONG, CRASH)
VERDICTS = (RIGHT, KEPT, LOSSY, REFUSED, *FAULTS)
