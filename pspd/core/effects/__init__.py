"""Commands and events that the machines emit."""
