"""How networks are made smaller and taught: a folder for each method, with its edits."""
