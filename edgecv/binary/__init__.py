"""Networks of one bit as they run: kernels in C (`c/`), their library, and what it computes."""
