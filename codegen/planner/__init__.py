"""The planner: what a tile needs of a machine, what it costs there, and which one is taken. Needs no device."""
