"""One-bit layers as they are trained: which, in what form, and the edit that puts them in."""
