"""Exchange formats of other makers: records in, records out, byte for byte."""
