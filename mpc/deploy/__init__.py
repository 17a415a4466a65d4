"""Deployment, on a robot or behind a network socket: artefacts, real-time loops, servers, limits on actions, telemetry."""
