"""What a file format is made of: readers and rewriters of graphs. No engine runs here."""
