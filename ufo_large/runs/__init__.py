"""What a run is, and what lies where in its folder."""
