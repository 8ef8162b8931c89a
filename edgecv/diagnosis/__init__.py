"""What is wrong with a bundle: `why` it is slow or inexact, and at which step (`parity`)."""
