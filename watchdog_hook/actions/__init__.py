"""What changes the process or leaves something behind. One deed a file; decisions are made elsewhere."""
