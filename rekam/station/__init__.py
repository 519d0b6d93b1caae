"""A workstation: devices, the capture session in the terminal, and what is sent to the service."""
