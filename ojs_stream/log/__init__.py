"""The log in Kafka: topics, packs, the producer and plain readers. It knows bytes and offsets, no rule."""
