"""DICOM: every frame of every file becomes a Slice; slices become stacks; a stack becomes a volume or an image."""
