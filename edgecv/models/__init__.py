"""A network as edgecv keeps it: a builder, a list of edits, and weights; where it comes from."""
