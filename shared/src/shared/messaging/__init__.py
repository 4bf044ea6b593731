"""Events between services: the bus and its two transports, the outbox, the relay, the consumer, dead letters."""
