"""What the model itself says on two sides of a concept, labelled by what it said, and how detectors tell it apart."""
