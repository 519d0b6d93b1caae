"""What feeds real driver stacks on a machine without the devices: for tests and demonstrations."""
