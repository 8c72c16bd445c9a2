"""What an encoder is fine-tuned for. A task is a method with labels, so the one loop drives it."""

# name: (module, config, task)
TASKS = {
    "classify": "medssl.tasks.classify:ClassifyConfig:Classify",
    "segment": "medssl.tasks.segment:SegmentConfig:Segment",
}
