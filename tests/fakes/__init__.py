"""Stand-ins for what a scheduler talks to. They speak the real protocols, and fail on command."""
