"""From app.yaml to an immutable release and the route that serves it."""
