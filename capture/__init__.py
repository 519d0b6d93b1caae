"""From a file or a frame to a `Sample`, from a sample to a template."""
