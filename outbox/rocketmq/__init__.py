"""The HTTP API of Message Queue for Apache RocketMQ: all of its bytes, and nothing of the outbox."""
